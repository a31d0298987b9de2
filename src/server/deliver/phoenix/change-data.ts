// An event of a `changes` subscription in the words of `postgres_changes`. Pure.
import type { Outgoing } from '../../route/outgoing.ts'
import type { Binding, ColumnType } from './wire.ts'

/** What becomes of an event for who is bound to `event`:
 *  - `send`: `changeDataOf` is its data.
 *  - `pass`: it is not for this binding.
 *  - `reread`: what the client holds is void, and no event says so: the table was truncated. Told as a resync is. */
export type Reaction = 'send' | 'pass' | 'reread'

export function reactionTo(outgoing: Outgoing, event: Binding['event']): Reaction {
  const op = opOf(outgoing)
  // Whoever hears of no delete holds nothing that a delete would take away.
  if (op === 'truncate') return event === '*' || event === 'DELETE' ? 'reread' : 'pass'
  return event === 'UPDATE' && op === 'insert' && outgoing.existed === false ? 'pass' : 'send'
}

/** @param outgoing a `change` that is to be sent, of a subscription whose columns these are
 *  @param event of the binding: an UPDATE that brings a row into view is told as UPDATE to who is bound to that alone
 *  @returns the JSON text of `data` */
export function changeDataOf(outgoing: Outgoing, columns: readonly ColumnType[], event: Binding['event']): string {
  const change = JSON.parse(outgoing.json)
  const type = event === 'UPDATE' ? 'UPDATE' : change.op.toUpperCase()
  return JSON.stringify({
    schema: change.schema,
    table: change.table,
    commit_timestamp: new Date(change.committedAt).toISOString(),
    type,
    columns: columns.map(({ name, type }) => ({ name, type })),
    ...(type === 'DELETE' ? {} : { record: change.new }),
    ...(type === 'INSERT' ? {} : { old_record: change.old ?? change.key }),
    errors: null,
  })
}

const opStart = '{"op":"'.length

const opOf = ({ json }: Outgoing): string => json.slice(opStart, json.indexOf('"', opStart))
