// What Supabase Realtime was found to do wrong, one test for each: with its own client, it does not happen here. Then what its users asked
// for that its wire can give them.
import { randomUUID } from 'node:crypto'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { migrate } from '../../src/cli/commands/migrate.ts'
import { track } from '../../src/cli/commands/track.ts'
import { loadConfig } from '../../src/server/config/config.ts'
import { startServer } from '../../src/server/server.ts'
import { Lines, Site } from '../server/admin/site.ts'
import { jwtSecret, prepareDatabase, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import type { JoinOptions } from './performer.ts'
import { startNodeRuntime } from './runtime.ts'
import { type Cell, type Scenario, type Scene, World } from './world.ts'

vi.setConfig({ maxConcurrency: 8 })

const cell: Cell = { version: '2.119.1', vsn: '2.0.0' }

const owned = `CREATE TABLE notes (id int PRIMARY KEY, owner uuid NOT NULL, body text, secret text);
  ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON notes FOR SELECT TO authenticated USING (owner = (SELECT auth.uid()));
  GRANT SELECT ON notes TO authenticated;`
const closed: JoinOptions = { broadcast: ['*'], config: { private: true, broadcast: { ack: true } } }
const watching = (key: string): JoinOptions => ({
  broadcast: ['*'],
  presence: ['sync', 'join', 'leave'],
  config: { private: true, presence: { key } },
})

async function reader(scene: Scene, sub: string, filter?: string) {
  const client = await scene.client({ sub })
  const changes = [{ event: '*', schema: scene.schema, table: 'notes', ...(filter === undefined ? {} : { filter }) }]
  return client.enter(scene.topic(`${sub} ${filter ?? ''}`), { changes })
}

const defects: readonly Scenario[] = [
  {
    name: '1. an update leaks the old row',
    tables: () => owned,
    tracked: ['notes'],
    async play(scene) {
      const [ann, bob] = [randomUUID(), randomUUID()]
      await scene.query(`INSERT INTO notes VALUES (1, '${bob}', 'of bob', 'bob only')`)
      const alice = await reader(scene, ann)
      await scene.query(`UPDATE notes SET owner = '${ann}', body = 'of ann', secret = NULL WHERE id = 1`)
      await alice.change(1)
      expect(alice.changes()).toMatchObject([
        { eventType: 'INSERT', new: { id: 1, owner: ann, body: 'of ann', secret: null }, old: {} },
      ])
      expect(JSON.stringify(alice.told)).not.toMatch(/bob only|of bob/)
      expect(JSON.stringify(alice.told)).not.toContain(bob)
    },
  },
  {
    name: '2. policies see the row as it is now, not at that change',
    tables: () => owned,
    tracked: ['notes'],
    async play(scene) {
      const [ann, bob] = [randomUUID(), randomUUID()]
      const [ofAnn, ofBob] = [await reader(scene, ann), await reader(scene, bob)]
      // Three commits, so quickly that all of them are over when the first is told.
      await Promise.all([
        scene.query(`INSERT INTO notes VALUES (1, '${bob}', 'of bob')`),
        scene.query(`UPDATE notes SET owner = '${ann}', body = 'of ann' WHERE id = 1`),
        scene.query('DELETE FROM notes WHERE id = 1'),
        scene.query(`INSERT INTO notes VALUES (8, '${ann}', 'end'), (9, '${bob}', 'end')`),
      ])
      await ofAnn.change(8)
      await ofBob.change(9)
      expect(ofBob.ops()).toEqual(['INSERT 1', 'DELETE 1', 'INSERT 9'])
      expect(ofAnn.ops()).toEqual(['INSERT 1', 'DELETE 1', 'INSERT 8'])
      expect(JSON.stringify(ofAnn.told)).not.toContain('of bob')
    },
  },
  {
    name: '3. deletes go to everybody, and a filter is an oracle',
    tables: () => owned,
    tracked: ['notes'],
    async play(scene) {
      const [ann, bob] = [randomUUID(), randomUUID()]
      await scene.query(`INSERT INTO notes VALUES (1, '${bob}', 'of bob', 'bob-private')`)
      const all = await reader(scene, ann)
      const oracle = await reader(scene, ann, 'secret=like.bob-priv%')
      const ofBob = await reader(scene, bob)
      await scene.query('DELETE FROM notes WHERE id = 1')
      await scene.query(`INSERT INTO notes VALUES (2, '${ann}', 'end', 'bob-private'), (3, '${bob}', 'end', '')`)
      for (const room of [all, oracle]) {
        await room.change(2)
        expect(room.ops()).toEqual(['INSERT 2'])
      }
      await ofBob.change(3)
      expect(ofBob.ops()).toEqual(['DELETE 1', 'INSERT 3'])
    },
  },
  {
    name: '4. a row that becomes invisible is not taken away',
    tables: () => owned,
    tracked: ['notes'],
    async play(scene) {
      const [ann, bob] = [randomUUID(), randomUUID()]
      await scene.query(`INSERT INTO notes VALUES (1, '${ann}', 'of ann')`)
      const room = await reader(scene, ann)
      await scene.query(`UPDATE notes SET owner = '${bob}', body = 'of bob' WHERE id = 1`)
      await room.change(1)
      expect(room.changes()).toMatchObject([
        { eventType: 'DELETE', new: {}, old: { id: 1, owner: ann, body: 'of ann' } },
      ])
      expect(JSON.stringify(room.told)).not.toContain('of bob')
    },
  },
  {
    name: '5. claims of all who are connected stand in a table',
    tables: () => owned,
    tracked: ['notes'],
    async play(scene) {
      const sub = randomUUID()
      const client = await scene.client({ sub, claims: { mark: `claim of ${sub}` } })
      await client.enter(scene.topic(), { changes: [{ event: '*', schema: scene.schema, table: 'notes' }] })
      const tables = await scene.query<{ name: string }>(
        `SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`,
      )
      expect(tables.length).toBeGreaterThan(2)
      for (const { name } of tables) {
        const [found] = await scene.query<{ count: number }>(
          `SELECT count(*)::int AS count FROM ${name} t WHERE to_jsonb(t)::text LIKE '%claim of ${sub}%'`,
        )
        expect([name, found?.count]).toEqual([name, 0])
      }
      const may = await scene.query(
        `SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relname = 'subscription' AND nspname = 'realtime'`,
      )
      expect(may).toEqual([])
    },
  },
  {
    name: '6. a key in the URL ends up in logs',
    async play(scene) {
      const written: string[] = []
      const log = pino({ level: 'trace' }, { write: line => void written.push(line) })
      await using database = await TestDatabase.create()
      await prepareDatabase(database, '', [])
      const config = loadConfig({
        DATABASE_URL: database.url,
        JWT_SECRET: jwtSecret,
        PORT: '0',
        LOG_LEVEL: 'debug',
        API_KEYS: 'sb_publishable_tests=anon',
        DRAIN_DELAY_MS: '0',
      })
      const server = await startServer(config, { log })
      try {
        await server.ready()
        const url = `http://127.0.0.1:${server.port}`
        const token = await tokenFor(randomUUID())
        // The key in the URL says who made the page; whose page it is stands in the first frame.
        const room = await (await scene.client({ url, key: 'sb_publishable_tests', token })).enter(scene.topic(), {
          broadcast: ['*'],
          config: { broadcast: { self: true } },
        })
        await room.send('end', {})
        await room.event('end')
        const bad = await (await scene.client({ url, key: `${token}x` })).join(scene.topic('refused'), {})
        await bad.until('an error', () => bad.statuses.length > 0)
        const worse = await (await scene.client({ url, token: `${token}x` })).join(scene.topic('worse'), {})
        await worse.until('an error', () => worse.statuses.length > 0)
        expect(written.length).toBeGreaterThan(0)
        for (const part of token.split('.').slice(1)) expect(written.join('')).not.toContain(part)
        expect(written.join('')).not.toContain('sb_publishable_tests')
      } finally {
        await server.stop()
      }
    },
  },
  {
    name: '7. presence keys and senders are whoever they say',
    async play(scene) {
      const topic = scene.topic()
      const [ann, eve] = [randomUUID(), randomUUID()]
      for (const sub of [ann, eve]) await scene.seat(sub, topic, 'hear', 'speak', 'see', 'show')
      const ofAnn = await (await scene.client({ sub: ann })).enter(topic, watching(ann))
      const ofEve = await (await scene.client({ sub: eve })).enter(topic, watching(ann))
      expect(await ofEve.track({ name: 'ann' })).toBe('error')
      expect(await ofAnn.track({ name: 'ann' })).toBe('ok')
      await ofAnn.presence({ [ann]: [{ name: 'ann' }] })
      await ofEve.send('said', { from: ann })
      await ofAnn.event('said')
      expect(ofAnn.of('join')).toHaveLength(1)
      expect(ofAnn.broadcasts[0]?.meta).toEqual({
        id: expect.any(String),
        sender: { user: eve, connection: expect.any(String) },
      })
    },
  },
  {
    name: '8. denials are silent',
    async play(scene) {
      const topic = scene.topic()
      const [member, mute] = [randomUUID(), randomUUID()]
      await scene.seat(member, topic, 'hear', 'speak')
      await scene.seat(mute, topic, 'hear')
      const room = await (await scene.client({ sub: member })).enter(topic, closed)
      const denied = await (await scene.client({ sub: mute })).enter(topic, closed)
      // Not by the client's own ten seconds, which would be 'timed out'.
      expect(await denied.send('denied', {}, { timeout: 60_000 })).toBe('error')
      expect(await denied.httpSend('denied', {})).toEqual({ rejected: expect.stringMatching(/\w{4}/) })
      const batch = await fetch(`${scene.world.node.url}/realtime/v1/api/broadcast`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${await tokenFor(mute)}` },
        body: JSON.stringify({ messages: [{ topic, event: 'denied', payload: {}, private: true }] }),
      })
      expect(batch.status).toBeGreaterThanOrEqual(400)
      await batch.body?.cancel()
      expect(await room.send('end', {})).toBe('ok')
      await denied.event('end')
      expect([room.heard, denied.heard]).toEqual([[], [['end', {}]]])
    },
  },
  {
    name: '9. whoever is put out goes on hearing until the next token',
    async play(scene) {
      const topic = `unkept:${scene.topic()}`
      const [ann, bob] = [randomUUID(), randomUUID()]
      for (const sub of [ann, bob]) await scene.seat(sub, topic, 'hear', 'speak', 'see', 'show')
      const out = await (await scene.client({ sub: ann })).enter(topic, watching(ann))
      const stays = await (await scene.client({ sub: bob })).enter(topic, watching(bob))
      await out.track({ n: 1 })
      await stays.presence({ [ann]: [{ n: 1 }] })
      await scene.query(`BEGIN; DELETE FROM seats WHERE user_id = '${ann}' AND topic = '${topic}';
        SELECT realtime.send('{}', 'after', '${topic}'); COMMIT`)
      await stays.event('after')
      await out.status('CHANNEL_ERROR')
      await stays.presence({})
      expect(await out.httpSend('denied', {})).toEqual({ rejected: expect.any(String) })
      await scene.seat(ann, topic, 'hear')
      await out.subscribed(2)
      await scene.query(`SELECT realtime.send('{}', 'end', '${topic}')`)
      await out.event('end')
      await stays.event('end')
      expect(out.heard.map(([event]) => event)).toEqual(['end'])
      expect(stays.heard.map(([event]) => event)).toEqual(['after', 'end'])
    },
  },
]

const pains: readonly Scenario[] = [
  {
    name: '2. SUBSCRIBED before changes flow',
    tables: () => `${owned} GRANT SELECT ON notes TO anon; ALTER TABLE notes DISABLE ROW LEVEL SECURITY`,
    tracked: ['notes'],
    async play(scene) {
      for (let id = 1; id <= 10; id++) {
        const client = await scene.client()
        const room = await client.join(scene.topic(`${id}`), {
          changes: [{ event: 'INSERT', schema: scene.schema, table: 'notes' }],
        })
        await room.subscribed()
        await scene.query(`INSERT INTO notes VALUES (${id}, '${randomUUID()}')`)
        await room.change(id)
        expect(room.ops()).toEqual([`INSERT ${id}`])
      }
    },
  },
  {
    name: '3. one bad policy silences everybody',
    tables: () => `${owned}
      CREATE FUNCTION check_claim(claim text) RETURNS boolean LANGUAGE plpgsql STABLE AS $f$ BEGIN
        IF claim = 'bad' THEN RAISE EXCEPTION 'a bad claim'; END IF; RETURN false; END $f$;
      CREATE POLICY raises ON notes FOR SELECT TO authenticated USING (check_claim((SELECT auth.jwt() ->> 'mark')));`,
    tracked: ['notes'],
    async play(scene) {
      const [ann, bad] = [randomUUID(), randomUUID()]
      const changes = [{ event: '*', schema: scene.schema, table: 'notes' }]
      const good = await (await scene.client({ sub: ann })).enter(scene.topic('good'), { changes })
      const raising = await (await scene.client({ sub: bad, claims: { mark: 'bad' } })).join(scene.topic('bad'), {
        changes,
      })
      await raising.until('any answer', () => raising.told.length > 0)
      await scene.query(`INSERT INTO notes VALUES (1, '${ann}')`)
      await good.change(1)
      await scene.query(`UPDATE notes SET body = 'x'`)
      await good.until('both', () => good.ops().length >= 2)
      expect(good.ops()).toEqual(['INSERT 1', 'UPDATE 1'])
      expect(good.statuses).toEqual(['SUBSCRIBED'])
      expect(raising.changes()).toEqual([])
      expect(raising.statuses).not.toContain('CLOSED')
    },
  },
  {
    name: '8. no event when a row leaves the filter',
    tables: () => `${owned} GRANT SELECT ON notes TO anon; ALTER TABLE notes DISABLE ROW LEVEL SECURITY`,
    tracked: ['notes'],
    async play(scene) {
      const client = await scene.client()
      const room = await client.enter(scene.topic(), {
        changes: [{ event: '*', schema: scene.schema, table: 'notes', filter: 'body=eq.open' }],
      })
      const owner = randomUUID()
      await scene.query(`INSERT INTO notes VALUES (1, '${owner}', 'open'), (2, '${owner}', 'shut')`)
      await scene.query(`UPDATE notes SET body = 'shut' WHERE id = 1`)
      await scene.query(`UPDATE notes SET body = 'open' WHERE id = 2`)
      await room.change(2)
      expect(room.ops()).toEqual(['INSERT 1', 'DELETE 1', 'INSERT 2'])
    },
  },
  {
    name: '14. silence because the socket is still anonymous',
    tables: () => owned,
    tracked: ['notes'],
    async play(scene) {
      const client = await scene.client()
      const room = await client.enter(scene.topic(), {
        changes: [{ event: '*', schema: scene.schema, table: 'notes' }],
      })
      await room.until('a word', () => room.systems.length > 0)
      expect(room.systems).toEqual([
        {
          extension: 'postgres_changes',
          status: 'error',
          channel: scene.topic(),
          message: expect.stringMatching(/anon/),
        },
      ])
    },
  },
  {
    name: '18. CLOSED for good after a rate limit',
    async play(scene) {
      const topic = `limited:${scene.topic()}`
      const from = await (await scene.client()).enter(topic, { broadcast: ['*'], config: { broadcast: { ack: true } } })
      const to = await (await scene.client()).enter(topic, { broadcast: ['*'] })
      const answers = await Promise.all(
        Array.from({ length: 60 }, (_, n) => from.send('flood', { n }, { timeout: 20_000 })),
      )
      const taken = answers.filter(each => each === 'ok').length
      expect(new Set(answers)).toEqual(new Set(['ok', 'error']))
      await from.until('that it may again', () => from.statuses.at(-1) === 'SUBSCRIBED')
      for (let n = 0; (await from.send('end', { n })) !== 'ok'; n++);
      await to.event('end')
      expect(to.broadcasts.filter(({ event }) => event === 'flood')).toHaveLength(taken)
      expect([...from.statuses, ...to.statuses]).not.toContain('CLOSED')
    },
  },
  {
    name: '24. leave and join on an update, and a channel closed by many',
    async play(scene) {
      const topic = scene.topic()
      const watcher = await (await scene.client()).enter(topic, { presence: ['sync', 'join', 'leave'] })
      const room = await (await scene.client()).enter(topic, { config: { presence: { key: 'ann' } } })
      for (let n = 0; n < 12; n++) expect(await room.track({ n })).toBe('ok')
      await watcher.presence({ ann: [{ n: 11 }] })
      expect(watcher.of('leave')).toEqual([])
      expect([...room.statuses, ...watcher.statuses]).toEqual(['SUBSCRIBED', 'SUBSCRIBED'])
    },
  },
]

let world: World

beforeAll(async () => {
  const settings = {
    CHANNELS: JSON.stringify([
      { pattern: 'unkept:*' },
      { pattern: 'limited:*', rate: { perSecond: 10, burst: 20 }, history: { length: 100, age: '1h' } },
      { pattern: '*', history: { length: 100, age: '1h' } },
    ]),
  }
  world = await World.begin(startNodeRuntime, [...defects, ...pains], settings, [cell])
})

afterAll(async () => {
  await world?.[Symbol.asyncDispose]()
})

const play = (scenario: Scenario): void =>
  test(scenario.name, async () => {
    await using scene = world.scene(cell, scenario)
    await scenario.play(scene)
  })

describe.concurrent('defects that are none here', () => {
  for (const scenario of defects) play(scenario)

  test('10. a superuser is needed', async () => {
    await using site = await Site.create()
    // The owner of the database prepares it, a login with REPLICATION reads it.
    const options = { databaseUrl: site.loginUrl, adminUrl: site.ownerUrl, name: 'tidegate' }
    const out = new Lines()
    await migrate({ ...options, conventions: false, print: false, dryRun: false }, out)
    await site.app.query(`CREATE TABLE app.plain (id int PRIMARY KEY, body text); GRANT USAGE ON SCHEMA app TO anon;
      GRANT SELECT ON app.plain TO anon`)
    await track({ ...options, tables: ['app.plain'], print: false, dryRun: false }, out)
    const supers = await site.database.query(
      `SELECT rolname FROM pg_roles WHERE rolsuper AND rolname IN ('${site.owner}', '${site.login}')`,
    )
    expect(supers).toEqual([])
    await site.database.query(`GRANT anon, authenticated TO ${site.login}`)
    await using node = await TestNode.start(site.loginUrl)
    const alone = defects[0]!
    await using scene = world.scene(cell, alone)
    const client = await scene.client({ url: node.url })
    const room = await client.enter('plain', { changes: [{ event: '*', schema: 'app', table: 'plain' }] })
    await site.app.query(`INSERT INTO app.plain VALUES (1, 'seen')`)
    await room.change(1)
    expect(room.changes()).toMatchObject([{ eventType: 'INSERT', new: { id: 1, body: 'seen' } }])
  })
})

describe.concurrent('what users asked for', () => {
  for (const scenario of pains) play(scenario)
})
