// Broadcasts: from clients over both ways, from the database, and of before.
import { randomUUID } from 'node:crypto'
import { expect } from 'vitest'
import type { Json, JsonObject } from '../performer.ts'
import type { Scenario, Scene } from '../world.ts'

const uuid = /^[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}$/
const other = (vsn: string): string => (vsn === '1.0.0' ? '2.0.0' : '1.0.0')
const noBytes = 'bytes go out over 2.0.0 alone: as JSON they are an empty object'

/** One who hears and speaks in a private channel. */
async function member(scene: Scene, topic: string, options: JsonObject = {}, url = scene.world.node.url) {
  const sub = randomUUID()
  await scene.seat(sub, topic, 'hear', 'speak')
  const client = await scene.client({ sub, url })
  const join = { config: { private: true, ...options }, broadcast: ['*'] }
  return { sub, client, join, room: await client.enter(topic, join) }
}

export const broadcasts: readonly Scenario[] = [
  {
    name: 'broadcast to the others',
    async play(scene) {
      const topic = scene.topic()
      const from = await (await scene.client()).enter(topic, { broadcast: ['*'] })
      const to = await (await scene.client()).enter(topic, { broadcast: ['shout'] })
      const all = await (await scene.client({ realtime: { vsn: other(scene.cell.vsn) } })).enter(topic, {
        broadcast: ['*'],
      })
      const payload = { text: 'hé "quoted" 😀', list: [1, null, { a: 0.5 }] }
      expect(await from.send('shout', payload)).toBe('ok')
      expect(await from.send('whisper', {})).toBe('ok')
      expect(await from.send('SHOUT', { end: true })).toBe('ok')
      await to.event('SHOUT')
      await all.event('SHOUT')
      expect(all.heard).toEqual([
        ['shout', payload],
        ['whisper', {}],
        ['SHOUT', { end: true }],
      ])
      expect(to.heard).toEqual([
        ['shout', payload],
        ['SHOUT', { end: true }],
      ])
      // Not to oneself: what others say came after, and is all there is.
      await all.send('end', {})
      await from.event('end')
      expect(from.heard).toEqual([['end', {}]])
      for (const each of all.broadcasts)
        expect(each).toMatchObject({ type: 'broadcast', meta: { id: expect.stringMatching(uuid) } })
      expect(to.broadcasts.map(({ meta }) => meta?.id)).toEqual(
        all.broadcasts.filter(({ event }) => event !== 'whisper').map(({ meta }) => meta?.id),
      )
    },
  },
  {
    name: 'broadcast to oneself too',
    async play(scene) {
      const client = await scene.client()
      const room = await client.enter(scene.topic(), { config: { broadcast: { self: true } }, broadcast: ['*'] })
      for (let i = 0; i < 5; i++) await room.send('count', { i })
      await room.event('count', 5)
      expect(room.heard).toEqual([0, 1, 2, 3, 4].map(i => ['count', { i }]))
      expect(new Set(room.broadcasts.map(({ meta }) => meta?.id)).size).toBe(5)
    },
  },
  {
    name: 'broadcast that is acknowledged',
    async play(scene) {
      const topic = scene.topic()
      const { room } = await member(scene, topic, { broadcast: { ack: true } })
      const { room: to } = await member(scene, topic)
      expect(await room.send('shout', { n: 1 })).toBe('ok')
      await to.event('shout')
      const mute = randomUUID()
      await scene.seat(mute, topic, 'hear')
      const denied = await (await scene.client({ sub: mute })).enter(topic, {
        config: { private: true, broadcast: { ack: true } },
        broadcast: ['*'],
      })
      expect(await denied.send('shout', { n: 2 })).toBe('error')
      expect(await room.send('big', { text: 'x'.repeat(200_000) })).toBe('error')
      expect(await room.send('end', {})).toBe('ok')
      await to.event('end')
      expect(to.heard).toEqual([
        ['shout', { n: 1 }],
        ['end', {}],
      ])
      expect([...room.statuses, ...denied.statuses]).toEqual(['SUBSCRIBED', 'SUBSCRIBED'])
    },
  },
  {
    name: 'broadcast of bytes',
    not: ({ vsn }) => (vsn === '1.0.0' ? noBytes : null),
    async play(scene) {
      const topic = scene.topic()
      const from = await (await scene.client()).enter(topic, { broadcast: ['*'] })
      const to = await (await scene.client()).enter(topic, { broadcast: ['*'] })
      const old = await (await scene.client({ realtime: { vsn: '1.0.0' } })).enter(topic, { broadcast: ['*'] })
      const bytes = [0, 1, 2, 253, 254, 255]
      await from.send('pixels', { bytes })
      await from.send('end', {})
      await to.event('end')
      await old.event('end')
      const meta = { id: expect.stringMatching(uuid) as unknown as string }
      expect(to.broadcasts[0]).toMatchObject({ type: 'broadcast', event: 'pixels', payload: { bytes }, meta })
      expect(old.broadcasts[0]).toMatchObject({
        type: 'broadcast',
        event: 'pixels',
        binary: Buffer.from(bytes).toString('base64'),
        meta,
      })
      expect([to.broadcasts.length, old.broadcasts.length]).toEqual([2, 2])
    },
  },
  {
    name: 'broadcast over HTTP',
    async play(scene) {
      const topic = scene.topic()
      const to = await (await scene.client()).enter(topic, { broadcast: ['*'] })
      const from = await (await scene.client()).prepare(topic)
      expect(await from.httpSend('one', { n: 1 })).toEqual({ success: true })
      // A channel that is not joined sends over HTTP, all in one.
      expect(await from.send('two', { n: 2 })).toBe('ok')
      const isCurrent = scene.cell.version === '2.119.1'
      if (isCurrent) expect(await from.httpSend('bytes', { bytes: [7, 8, 255] })).toEqual({ success: true })
      expect(await from.httpSend('end', { n: 3 })).toEqual({ success: true })
      await to.event('end')
      const bytes = scene.cell.vsn === '2.0.0' ? { bytes: [7, 8, 255] } : undefined
      expect(to.heard).toEqual([
        ['one', { n: 1 }],
        ['two', { n: 2 }],
        ...(isCurrent ? [['bytes', bytes]] : []),
        ['end', { n: 3 }],
      ])
    },
  },
  {
    name: 'broadcast over HTTP to a private channel',
    async play(scene) {
      const topic = scene.topic()
      const { room } = await member(scene, topic)
      const [may, mayNot] = [randomUUID(), randomUUID()]
      await scene.seat(may, topic, 'speak')
      const config = { private: true }
      const sender = await (await scene.client({ sub: may })).prepare(topic, { config })
      const stranger = await (await scene.client({ sub: mayNot })).prepare(topic, { config })
      // The client says its token when it has asked for it.
      await Promise.all([sender, stranger].map(each => each.client.renew()))
      expect(await stranger.httpSend('denied', {})).toEqual({ rejected: expect.stringMatching(/./) })
      expect(await sender.httpSend('end', {})).toEqual({ success: true })
      await room.event('end')
      expect(room.heard).toEqual([['end', {}]])
    },
  },
  {
    name: 'broadcast from the database',
    tables: () => `CREATE TABLE todos (id int PRIMARY KEY, task text);
      CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $f$ BEGIN
        PERFORM realtime.broadcast_changes(TG_ARGV[0], TG_OP, TG_OP, TG_TABLE_NAME, TG_TABLE_SCHEMA, NEW, OLD);
        RETURN NULL; END $f$`,
    async play(scene) {
      const topic = scene.topic()
      const { room } = await member(scene, topic)
      const open = await (await scene.client()).enter(topic, { broadcast: ['*'] })
      await scene.query(
        `CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON todos FOR EACH ROW EXECUTE FUNCTION tell('${topic}')`,
      )
      await scene.query(`INSERT INTO todos VALUES (1, 'a')`)
      await scene.query(`UPDATE todos SET task = 'b'`)
      await scene.query('DELETE FROM todos')
      await scene.query(`SELECT realtime.send('{"n": 1}', 'private', '${topic}')`)
      await scene.query(`SELECT realtime.send('{"n": 2}', 'public', '${topic}', false)`)
      await scene.query(`SELECT realtime.send_binary('\\x0102ff', 'bytes', '${topic}')`)
      // Not said, for it was not committed.
      await scene.query(`BEGIN; SELECT realtime.send('{}', 'never', '${topic}'); ROLLBACK`)
      await scene.query(`SELECT realtime.send('{}', 'end', '${topic}'), realtime.send('{}', 'end', '${topic}', false)`)
      await room.event('end')
      await open.event('end')
      const { schema } = scene
      const of = (operation: string, record: object | null, old_record: object | null): unknown[] => [
        operation,
        expect.objectContaining({ operation, schema, table: 'todos', record, old_record }),
      ]
      expect(room.heard).toEqual([
        of('INSERT', { id: 1, task: 'a' }, null),
        of('UPDATE', { id: 1, task: 'b' }, { id: 1, task: 'a' }),
        of('DELETE', null, { id: 1, task: 'b' }),
        ['private', expect.objectContaining({ n: 1 })],
        ['bytes', scene.cell.vsn === '2.0.0' ? { bytes: [1, 2, 255] } : undefined],
        ['end', expect.anything()],
      ])
      expect(open.heard.map(([event]) => event)).toEqual(['public', 'end'])
      for (const { meta } of room.broadcasts) expect(meta).toEqual({ id: expect.stringMatching(uuid) })
    },
  },
  {
    name: 'broadcasts of before',
    async play(scene) {
      const topic = scene.topic()
      const begun = Date.now()
      const { room: from } = await member(scene, topic, { broadcast: { ack: true } })
      for (let n = 1; n <= 3; n++) await scene.query(`SELECT realtime.send('{"n": ${n}}', 'sent', '${topic}')`)
      await from.event('sent', 3)
      await from.send('said', { n: 4 })
      const replay = (since: number, limit?: number) =>
        member(scene, topic, { broadcast: { replay: { since, ...(limit === undefined ? {} : { limit }) } } })
      const { room: newest } = await replay(begun - 60_000, 2)
      const { room: all } = await replay(begun - 60_000)
      const { room: none } = await replay(Date.now() + 3_600_000, 25)
      await from.send('end', {})
      for (const room of [newest, all, none]) await room.event('end')
      const inShort = (room: typeof all): Json[][] =>
        room.broadcasts.map(({ event, payload, meta }) => [
          event,
          (payload as { n?: number }).n ?? 0,
          meta?.replayed ?? false,
        ])
      expect(inShort(all)).toEqual([
        ['sent', 1, true],
        ['sent', 2, true],
        ['sent', 3, true],
        ['said', 4, true],
        ['end', 0, false],
      ])
      expect(inShort(newest)).toEqual([
        ['sent', 3, true],
        ['said', 4, true],
        ['end', 0, false],
      ])
      expect(inShort(none)).toEqual([['end', 0, false]])
    },
  },
  {
    name: 'replay of a public channel',
    async play(scene) {
      const client = await scene.client()
      // The client itself knows better.
      await expect(client.prepare(scene.topic(), { config: { broadcast: { replay: { since: 0 } } } })).rejects.toThrow(
        /replay on public channel/,
      )
    },
  },
  {
    name: 'replication that is ready',
    async play(scene) {
      const client = await scene.client()
      const room = await client.enter(scene.topic(), { config: { broadcast: { replication_ready: true } } })
      await room.until('the system message', () => room.systems.length > 0)
      expect(room.systems).toEqual([
        { extension: 'system', status: 'ok', message: 'Replication connection established', channel: scene.topic() },
      ])
    },
  },
  {
    name: 'messages that are kept',
    not: ({ version, vsn }) =>
      version === '2.83.0' ? 'it cannot ask for it' : vsn === '1.0.0' ? 'it refuses to, with 1.0.0' : null,
    async play(scene) {
      const topic = scene.topic()
      const { room } = await member(scene, topic, { broadcast: { ack: true } })
      expect(await room.send('kept', { n: 1 }, { persist: true })).toBe('ok')
      expect(await room.httpSend('kept', { n: 2 }, { persist: { ttl: 600 } })).toEqual({ success: true })
      const { room: late } = await member(scene, topic, { broadcast: { replay: { since: Date.now() - 600_000 } } })
      await room.send('end', {})
      await late.event('end')
      expect(late.heard).toEqual([
        ['kept', { n: 1 }],
        ['kept', { n: 2 }],
        ['end', {}],
      ])
    },
  },
  {
    name: 'broadcasts missed while away',
    async play(scene) {
      const topic = scene.topic()
      const proxy = await scene.proxy()
      const { room: from } = await member(scene, topic, { broadcast: { ack: true } })
      const { room: to } = await member(scene, topic, {}, proxy.url)
      await from.send('before', {})
      await to.event('before')
      proxy.link.isRefusing = true
      proxy.link.cut()
      await to.status('CHANNEL_ERROR')
      await from.send('said', {})
      await scene.query(`SELECT realtime.send('{}', 'sent', '${topic}')`)
      await from.event('sent')
      proxy.link.isRefusing = false
      await to.subscribed(2)
      await from.send('end', {})
      await to.event('end')
      const ids = to.broadcasts.map(({ meta }) => meta?.id)
      const once = to.broadcasts.filter(({ meta }, index) => ids.indexOf(meta?.id) === index)
      expect(once.map(({ event }) => event)).toEqual(['before', 'said', 'sent', 'end'])
    },
  },
  {
    name: 'names of other letters',
    not: ({ version, vsn }) =>
      version === '2.83.0' && vsn === '2.0.0' ? 'it writes one byte for each letter, and garbles others' : null,
    async play(scene) {
      const topic = `${scene.topic()}:señal ☂`
      const from = await (await scene.client()).enter(topic, { broadcast: ['*'] })
      const to = await (await scene.client()).enter(topic, { broadcast: ['*'] })
      await from.send('größe', { a: 'ü' })
      await to.event('größe')
      expect(to.heard).toEqual([['größe', { a: 'ü' }]])
    },
  },
]
