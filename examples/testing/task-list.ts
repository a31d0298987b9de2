// What a team still has to do, as far as this user may see it, kept up to date.
import type { Client } from 'tidegate/client'

export interface Database {
  tasks: { id: number; team_id: number; title: string; done: boolean }
}

export class TaskList {
  /** The oldest first. */
  titles: readonly string[] = []
  readonly #unsubscribe: () => void

  /** @param onChange called whenever `titles` are others */
  constructor(tide: Client<Database>, teamId: number, onChange: () => void = () => {}) {
    const open = tide
      .from('tasks')
      .where('team_id', '=', teamId)
      .where('done', '=', false)
      .select(['id', 'title'])
      .live()
    this.#unsubscribe = open.subscribe(({ rows }) => {
      this.titles = rows.toSorted((a, b) => a.id - b.id).map(({ title }) => title)
      onChange()
    })
  }

  close(): void {
    this.#unsubscribe()
  }
}
