// Channels: who may enter, what becomes of who no longer may, tokens, heartbeats, and sockets that break.
import { randomUUID } from 'node:crypto'
import { expect } from 'vitest'
import { tokenFor } from '../../support/node.ts'
import { until } from '../../support/stalled.ts'
import type { JoinOptions } from '../performer.ts'
import type { Scenario } from '../world.ts'

const open: JoinOptions = { broadcast: ['*'] }
const closed: JoinOptions = { broadcast: ['*'], config: { private: true, broadcast: { ack: true } } }

export const channels: readonly Scenario[] = [
  {
    name: 'public and private of one name',
    async play(scene) {
      const topic = scene.topic()
      const sub = randomUUID()
      await scene.seat(sub, topic, 'hear', 'speak')
      const outside = await (await scene.client()).enter(topic, open)
      const other = await (await scene.client()).enter(topic, open)
      const inside = await (await scene.client({ sub })).enter(topic, closed)
      const within = await (await scene.client({ sub })).enter(topic, closed)
      await outside.send('from outside', {})
      expect(await inside.send('from inside', {})).toBe('ok')
      await scene.query(
        `SELECT realtime.send('{}', 'sent inside', '${topic}'), realtime.send('{}', 'sent outside', '${topic}', false)`,
      )
      await other.event('sent outside')
      await within.event('sent inside')
      await outside.send('end', {})
      await inside.send('end', {})
      await other.event('end')
      await within.event('end')
      const events = (room: typeof inside): string[] => room.broadcasts.map(({ event }) => event)
      expect(events(other)).toEqual(['from outside', 'sent outside', 'end'])
      expect(events(within)).toEqual(['from inside', 'sent inside', 'end'])
      expect(events(inside)).toEqual(['sent inside'])
      expect(events(outside)).toEqual(['sent outside'])
    },
  },
  {
    name: 'private channel refused and granted',
    async play(scene) {
      const topic = scene.topic()
      const sub = randomUUID()
      const stranger = await (await scene.client()).join(topic, closed)
      const room = await (await scene.client({ sub })).join(topic, closed)
      const reason = `Unauthorized: You do not have permissions to read from this Channel topic: ${topic}`
      for (const each of [stranger, room]) {
        await each.status('CHANNEL_ERROR')
        expect(each.of('status')[0]?.[1]).toContain(reason)
      }
      await scene.seat(sub, topic, 'hear', 'speak')
      // It tries again by itself.
      await room.subscribed()
      await scene.query(`SELECT realtime.send('{}', 'end', '${topic}')`)
      await room.event('end')
      expect(stranger.broadcasts).toEqual([])
      expect(stranger.statuses).not.toContain('SUBSCRIBED')
    },
  },
  {
    name: 'private channel revoked and granted again',
    async play(scene) {
      // Who is let in may read a history.
      const topic = `unkept:${scene.topic()}`
      const [ann, bob] = [randomUUID(), randomUUID()]
      for (const sub of [ann, bob]) await scene.seat(sub, topic, 'hear', 'speak')
      const room = await (await scene.client({ sub: ann })).enter(topic, closed)
      const stays = await (await scene.client({ sub: bob })).enter(topic, closed)
      await stays.send('one', {})
      await room.event('one')
      await scene.query(`BEGIN; DELETE FROM seats WHERE topic = '${topic}' AND user_id = '${ann}';
        SELECT realtime.send('{}', 'hidden', '${topic}'); COMMIT`)
      await stays.event('hidden')
      await room.status('CHANNEL_ERROR')
      expect(await stays.send('still hidden', {})).toBe('ok')
      await scene.seat(ann, topic, 'hear', 'speak')
      await room.subscribed(2)
      await stays.send('end', {})
      await room.event('end')
      // CLOSED would be for good.
      expect(room.statuses).not.toContain('CLOSED')
      const system = room.systems.find(({ status }) => status === 'error')
      expect(system?.message).toMatch(/You no longer have permission|no longer/)
      expect(room.broadcasts.map(({ event }) => event)).toEqual(['one', 'end'])
    },
  },
  {
    name: 'right to speak revoked and granted again',
    async play(scene) {
      const topic = scene.topic()
      const sub = randomUUID()
      await scene.seat(sub, topic, 'hear', 'speak')
      const room = await (await scene.client({ sub })).enter(topic, closed)
      const hears = await (await scene.client({ sub })).enter(topic, closed)
      expect(await room.send('one', {})).toBe('ok')
      await scene.unseat(sub, topic, 'speak')
      // The node has the commit when it has told of a later one.
      await scene.query(`SELECT realtime.send('{}', 'later', '${topic}')`)
      await hears.event('later')
      expect(await room.send('two', {})).toBe('error')
      await scene.seat(sub, topic, 'speak')
      await scene.query(`SELECT realtime.send('{}', 'latest', '${topic}')`)
      await hears.event('latest')
      expect(await room.send('end', {})).toBe('ok')
      await hears.event('end')
      expect(hears.broadcasts.map(({ event }) => event)).toEqual(['one', 'later', 'latest', 'end'])
      expect(room.statuses).toEqual(['SUBSCRIBED'])
    },
  },
  {
    name: 'token renewed by accessToken',
    tables: () => `CREATE TABLE notes (id int PRIMARY KEY, team text);
      ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
      CREATE POLICY team ON notes FOR SELECT TO authenticated USING (team = (SELECT auth.jwt() ->> 'team') OR team = 'all');
      GRANT SELECT ON notes TO authenticated`,
    tracked: ['notes'],
    async play(scene) {
      const sub = randomUUID()
      const client = await scene.client({ sub, claims: { team: 'red' } })
      const room = await client.enter(scene.topic(), {
        changes: [{ event: '*', schema: scene.schema, table: 'notes' }],
      })
      await scene.query(`INSERT INTO notes VALUES (1, 'red'), (2, 'blue'), (3, 'all')`)
      await room.change(3)
      await client.renew(await tokenFor(sub, { team: 'blue' }))
      // Nothing answers an access_token: the new claims are seen by what they show.
      let id = 100
      await until(async () => {
        await scene.query(`INSERT INTO notes VALUES (${++id}, 'blue')`)
        return room.changes().some(each => (each.new.id as number) > 100)
      })
      await scene.query(`INSERT INTO notes VALUES (1001, 'red')`)
      await scene.query(`INSERT INTO notes VALUES (1002, 'all')`)
      await room.change(1002)
      const ids = room.changes().flatMap(each => (each.eventType === 'INSERT' ? [each.new.id as number] : []))
      expect(ids.filter(each => each < 100)).toEqual([1, 3])
      expect(ids.filter(each => each > 1000)).toEqual([1002])
    },
  },
  {
    name: 'token given by setAuth',
    async play(scene) {
      const topic = scene.topic()
      const [ann, bob] = [randomUUID(), randomUUID()]
      await scene.seat(ann, topic, 'hear', 'speak')
      const client = await scene.client({ isBare: true })
      const room = await client.join(topic, closed)
      await room.status('CHANNEL_ERROR')
      await client.setAuth(await tokenFor(ann))
      await room.subscribed()
      await client.setAuth(await tokenFor(ann, { newer: true }))
      expect(await room.send('still here', {})).toBe('ok')
      // Of somebody who may not be here.
      await client.setAuth(await tokenFor(bob))
      await room.status('CHANNEL_ERROR', 2)
      await client.setAuth(await tokenFor(ann))
      await room.subscribed(2)
      expect(room.statuses).not.toContain('CLOSED')
    },
  },
  {
    name: 'token that expires',
    async play(scene) {
      const topic = scene.topic()
      const sub = randomUUID()
      await scene.seat(sub, topic, 'hear', 'speak')
      const now = Math.floor(Date.now() / 1000)
      const { SignJWT } = await import('jose')
      const { jwtSecret } = await import('../../support/node.ts')
      const short = await new SignJWT({ role: 'authenticated', sub })
        .setProtectedHeader({ alg: 'HS256' })
        .setExpirationTime(now + 4)
        .sign(new TextEncoder().encode(jwtSecret))
      const client = await scene.client({ token: short })
      const room = await client.enter(topic, closed)
      await room.status('CHANNEL_ERROR')
      await room.until('the system message', () => room.systems.length > 0)
      expect(room.systems.find(({ status }) => status === 'error')?.message).toMatch(/expired/i)
      await client.renew(await tokenFor(sub))
      await room.subscribed(2)
      expect(await room.send('back', {})).toBe('ok')
      expect(room.statuses).not.toContain('CLOSED')
    },
  },
  {
    name: 'breaks, renewals and revocations in between',
    tables: () => `CREATE TABLE notes (id int PRIMARY KEY, topic text);
      ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
      CREATE POLICY seated ON notes FOR SELECT TO authenticated USING (EXISTS (SELECT 1 FROM public.seats s
        WHERE s.topic = notes.topic AND s.user_id = (SELECT auth.uid()) AND s.may = 'hear'));
      GRANT SELECT ON notes TO authenticated`,
    tracked: ['notes'],
    async play(scene) {
      const topic = scene.topic()
      const [ann, bob] = [randomUUID(), randomUUID()]
      for (const sub of [ann, bob]) await scene.seat(sub, topic, 'hear', 'speak', 'see', 'show')
      const proxy = await scene.proxy()
      const client = await scene.client({ sub: ann, url: proxy.url })
      const room = await client.enter(topic, {
        ...closed,
        presence: ['sync'],
        changes: [{ event: '*', schema: scene.schema, table: 'notes' }],
      })
      const speaker = await (await scene.client({ sub: bob })).enter(topic, {
        ...closed,
        config: { private: true, broadcast: { ack: true }, presence: { key: bob } },
      })
      let last = 0
      const tell = async (): Promise<number> => {
        last += 1
        await scene.query(`INSERT INTO notes VALUES (${last}, '${topic}')`)
        expect(await speaker.send(`${last}`, {})).toBe('ok')
        return last
      }
      const told = async (n: number): Promise<void> => {
        await room.change(n)
        await room.event(`${n}`)
      }
      await told(await tell())
      await client.renew(await tokenFor(ann, { jti: 'second' }))
      await told(await tell())
      // Renewed while away, with something missed.
      proxy.link.isRefusing = true
      proxy.link.cut()
      await room.status('CHANNEL_ERROR')
      await client.renew(await tokenFor(ann, { jti: 'third' }))
      await tell()
      await speaker.track({ n: 1 })
      proxy.link.isRefusing = false
      await room.subscribed(2)
      await told(3)
      await told(await tell())
      await room.presence({ [bob]: [{ n: 1 }] })
      // Put out, and let in again.
      await scene.unseat(ann, topic)
      await room.until('an error', () => room.statuses.at(-1) === 'CHANNEL_ERROR')
      await tell()
      await scene.seat(ann, topic, 'hear', 'see')
      await room.subscribed(3)
      await told(await tell())
      // Put out while away: it comes back to a closed door.
      proxy.link.isRefusing = true
      proxy.link.cut()
      await room.until('an error', () => room.statuses.at(-1) === 'CHANNEL_ERROR')
      await scene.unseat(ann, topic)
      await tell()
      proxy.link.isRefusing = false
      await room.until('that it is shut out', () => JSON.stringify(room.of('status').at(-1)).includes('Unauthorized'))
      await tell()
      await scene.seat(ann, topic, 'hear', 'see')
      await room.subscribed(4)
      await told(await tell())
      const heard = room.broadcasts.map(({ event }) => Number(event))
      const seen = room.changes().map(each => (each.new.id ?? each.old.id) as number)
      // 5, 7 and 8 were for others: whoever is let in again may find them in the history, and among the rows. What came just before a
      // break may come again.
      for (const told of [heard, seen]) {
        const once = [...new Set(told)]
        expect(once.filter(n => ![5, 7, 8].includes(n))).toEqual([1, 2, 3, 4, 6, 9])
      }
      expect([...new Set(heard)]).toEqual([...new Set(heard)].toSorted((a, b) => a - b))
      expect(room.changes().map(each => each.eventType)).not.toContain('UPDATE')
      expect(room.statuses).not.toContain('CLOSED')
      await room.presence({ [bob]: [{ n: 1 }] })
    },
  },
  {
    name: 'heartbeats',
    async play(scene) {
      const client = await scene.client({ realtime: { heartbeatIntervalMs: 200 } })
      const room = await client.enter(scene.topic(), open)
      await until(() => client.heartbeats.filter(each => each === 'ok').length >= 4)
      expect(new Set(client.heartbeats)).toEqual(new Set(['sent', 'ok']))
      expect(room.statuses).toEqual(['SUBSCRIBED'])
    },
  },
  {
    name: 'heartbeats of a worker',
    not: ({ runtime }) => (runtime === 'Node' ? 'Node has no Worker of browsers' : null),
    async play(scene) {
      const client = await scene.client({ realtime: { heartbeatIntervalMs: 200, worker: true } })
      const room = await client.enter(scene.topic(), open)
      await until(() => client.heartbeats.filter(each => each === 'ok').length >= 3)
      expect(new Set(client.heartbeats)).toEqual(new Set(['sent', 'ok']))
      expect(room.statuses).toEqual(['SUBSCRIBED'])
    },
  },
  {
    name: 'a socket that dies silently',
    async play(scene) {
      const proxy = await scene.proxy()
      const client = await scene.client({ url: proxy.url, realtime: { heartbeatIntervalMs: 300 } })
      const room = await client.enter(scene.topic(), open)
      proxy.link.freeze()
      await until(() => client.heartbeats.includes('timeout'))
      // The elder waits until its close has been answered.
      if (scene.cell.version === '2.83.0') proxy.link.thaw()
      await room.status('CHANNEL_ERROR')
      await room.subscribed(2)
      const other = await (await scene.client()).enter(scene.topic(), open)
      await other.send('end', {})
      await room.event('end')
    },
  },
  {
    name: 'pushes before the join',
    async play(scene) {
      const topic = scene.topic()
      const watcher = await (await scene.client()).enter(topic, { presence: ['sync'] })
      const room = await (await scene.client()).prepare(topic, {
        ...open,
        presence: ['sync'],
        config: { presence: { key: 'early' } },
      })
      await room.subscribe()
      expect(await room.track({ n: 1 })).toBe('ok')
      await watcher.presence({ early: [{ n: 1 }] })
    },
  },
  {
    name: 'leave and join again',
    tables: () => 'CREATE TABLE todos (id int PRIMARY KEY); GRANT SELECT ON todos TO anon',
    tracked: ['todos'],
    async play(scene) {
      const topic = scene.topic()
      const options: JoinOptions = { ...open, changes: [{ event: '*', schema: scene.schema, table: 'todos' }] }
      const client = await scene.client()
      const other = await (await scene.client()).enter(topic, open)
      // Keeps the socket open meanwhile.
      const beside = await client.enter(scene.topic('beside'), options)
      const room = await client.enter(topic, options)
      expect(await room.remove()).toBe('ok')
      await room.status('CLOSED')
      await other.send('missed', {})
      await scene.query('INSERT INTO todos VALUES (1)')
      await beside.change(1)
      await client.enter(topic, options)
      await other.send('end', {})
      await scene.query('INSERT INTO todos VALUES (2)')
      await room.event('end')
      await room.change(2)
      await beside.change(2)
      expect(room.statuses).toEqual(['SUBSCRIBED', 'CLOSED', 'SUBSCRIBED'])
      expect(room.ops()).toEqual(['INSERT 2'])
      expect(room.heard).toEqual([['end', {}]])
      expect(beside.ops()).toEqual(['INSERT 1', 'INSERT 2'])
      expect(beside.statuses).toEqual(['SUBSCRIBED'])
    },
  },
  {
    name: 'subscribe twice',
    async play(scene) {
      const topic = scene.topic()
      const room = await (await scene.client()).enter(topic, open)
      await room.subscribe()
      const other = await (await scene.client()).enter(topic, open)
      await other.send('end', {})
      await room.event('end')
      expect(room.heard).toEqual([['end', {}]])
      expect(room.statuses).toEqual(['SUBSCRIBED'])
    },
  },
  {
    name: 'a hundred channels',
    async play(scene) {
      const client = await scene.client()
      const rooms = await Promise.all(Array.from({ length: 100 }, (_, i) => client.join(scene.topic(`${i}`), open)))
      for (const room of rooms) await room.subscribed()
      const tooMany = await client.join(scene.topic('100'), open)
      await tooMany.status('CHANNEL_ERROR')
      expect(tooMany.of('status')[0]?.[1]).toContain('ChannelRateLimitReached')
      const other = await (await scene.client()).enter(scene.topic('99'), open)
      await other.send('end', {})
      await rooms[99]!.event('end')
      // There is room again.
      await rooms[0]!.remove()
      await tooMany.subscribed()
    },
  },
  {
    name: 'publishable key',
    async play(scene) {
      const topic = scene.topic()
      const client = await scene.client({ key: 'sb_publishable_tests' })
      const room = await client.enter(topic, open)
      const other = await (await scene.client({ key: 'sb_publishable_tests' })).prepare(topic)
      expect(await other.httpSend('end', {})).toEqual({ success: true })
      await room.event('end')
    },
  },
  {
    name: 'a key that is none',
    async play(scene) {
      const client = await scene.client({ key: 'nobody.knows.it' })
      const room = await client.join(scene.topic(), open)
      await room.until('an error', () => room.statuses.length > 0)
      expect(room.statuses).not.toContain('SUBSCRIBED')
      const prepared = await client.prepare(scene.topic('http'))
      expect(await prepared.httpSend('event', {})).toEqual({ rejected: expect.stringMatching(/./) })
    },
  },
]
