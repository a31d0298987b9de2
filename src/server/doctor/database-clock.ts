// How far the clock of Postgres is from this machine's.
import type pg from 'pg'
import { queryText } from '../postgres/database.ts'
import type { ClockReading } from './database-server.ts'

const samples = 5

/** Of several round trips the shortest counts: the answer was given within it.
 *  @param now milliseconds since 1970 */
export async function readClock(client: pg.ClientBase, now: () => number): Promise<ClockReading> {
  const readings: ClockReading[] = []
  for (let i = 0; i < samples; i++) {
    const before = now()
    const [row] = await queryText(client, 'SELECT extract(epoch FROM clock_timestamp()) * 1000')
    const after = now()
    readings.push({ skewMs: Number(row![0]) - (before + after) / 2, roundTripMs: after - before })
  }
  return readings.reduce((best, each) => (each.roundTripMs < best.roundTripMs ? each : best))
}
