// Somebody who writes all the while.
import { setTimeout as sleep } from 'node:timers/promises'
import type { TestDatabase } from './postgres.ts'

/** Inserts messages into room 1 of `roomsSchema`, one every few milliseconds, while `use` runs.
 *  @param afterId the greatest id there is; the next ones follow
 *  @returns the greatest id then */
export async function writing(
  database: TestDatabase,
  { afterId, everyMs }: { readonly afterId: number; readonly everyMs: number },
  use: () => Promise<void>,
): Promise<number> {
  let isOver = false
  let id = afterId
  const writer = (async () => {
    while (!isOver) {
      id += 1
      await database.query(`INSERT INTO messages VALUES (${id}, 1, 'a', 'b')`)
      await sleep(everyMs)
    }
  })()
  try {
    await use()
  } finally {
    isOver = true
    await writer
  }
  return id
}
