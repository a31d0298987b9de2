// What a running node says of a schema realtime that somebody else made.
import { expect, test } from 'vitest'
import { migrate } from '../../../src/cli/commands/migrate.ts'
import { RealtimeWatch } from '../../../src/server/admin/realtime-watch.ts'
import { loadConfig } from '../../../src/server/config/config.ts'
import { createLog, type Log } from '../../../src/server/log/log.ts'
import { createPool } from '../../../src/server/postgres/database.ts'
import { startServer } from '../../../src/server/server.ts'
import { eventually } from '../../support/eventually.ts'
import { jwtSecret } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { relaySettings } from '../../support/relay.ts'
import { makePartitions, makeSupabase } from '../../support/supabase-schema.ts'
import { Site } from './site.ts'

/** A log whose warnings that are findings are kept. */
function findingsLog(): { readonly log: Log; readonly said: string[] } {
  const said: string[] = []
  const silent = createLog('silent')
  const warn = (first: object | string, message?: string): void => {
    if (typeof first === 'object' && 'finding' in first) said.push(`${first.finding} ${message}`)
  }
  return { log: { debug: silent.debug, info: silent.info, error: silent.error, warn: warn as Log['warn'] }, said }
}

const tomorrow = async (database: TestDatabase): Promise<string> =>
  (
    await database.query<{ name: string }>(
      `SELECT to_char(timezone('UTC', now()) + interval '1 day', '"realtime.messages_"YYYY_MM_DD') AS name`,
    )
  )[0]!.name

test("each thing is said once as long as it is so, and again when it comes back, by the server's login", async () => {
  await using site = await Site.create()
  const { database } = site
  await makeSupabase(database)
  await database.query('REVOKE SELECT ON realtime.subscription FROM anon, authenticated')
  await migrate(site.options, { write: () => true })
  const pool = createPool(site.loginUrl, { maxConnections: 1 })
  try {
    const { log, said } = findingsLog()
    const watch = new RealtimeWatch({ pool, publication: 'tidegate', log })
    const [swallows, missing] = [
      expect.stringMatching(/^SEND_SWALLOWS_ERRORS realtime\.send and realtime\.send_binary swallow/),
      expect.stringMatching(/^PARTITION_MISSING realtime\.messages has no partition for tomorrow/),
    ]
    expect(watch.isDue(0)).toBe(true)
    await watch.look(0)
    expect([watch.isDue(3_599_999), watch.isDue(3_600_000)]).toEqual([false, true])
    expect(said).toEqual([swallows])
    await database.query(`DROP TABLE ${await tomorrow(database)}`)
    await watch.look(1)
    await watch.look(2)
    expect(said).toEqual([swallows, missing])
    await makePartitions(database, 1, 1)
    await watch.look(3)
    await database.query(`DROP TABLE ${await tomorrow(database)}`)
    await watch.look(4)
    expect(said).toEqual([swallows, missing, missing])
  } finally {
    await pool.end()
  }
})

test('a node that leads says it soon after its start', async () => {
  await using database = await TestDatabase.create()
  await makeSupabase(database, { partitions: [0, 0] })
  await migrate({ databaseUrl: database.url, adminUrl: database.url, name: 'tidegate' }, { write: () => true })
  const { log, said } = findingsLog()
  const config = loadConfig({
    DATABASE_URL: database.url,
    JWT_SECRET: jwtSecret,
    PORT: '0',
    ...(await relaySettings(database.url)),
  })
  const server = await startServer(config, { log })
  try {
    await eventually(() =>
      expect(said.map(line => line.split(' ')[0])).toEqual([
        'SEND_SWALLOWS_ERRORS',
        'PARTITION_MISSING',
        'CLAIMS_READABLE',
      ]),
    )
  } finally {
    await server.stop()
  }
})
