// The npm package `phoenix`, of which Supabase's clients are made: joins, pushes, receives, comes back, over both versions of the wire.
import { randomUUID } from 'node:crypto'
import { type Channel, Presence, Socket, type SocketConnectOption } from 'phoenix'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { FaultProxy } from '../support/fault-proxy.ts'
import { person, prepareDatabase, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { until } from '../support/stalled.ts'

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  const schema = `
    CREATE TABLE public.notes (id int PRIMARY KEY, owner uuid, body text);
    ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON public.notes FOR SELECT TO authenticated USING (owner = (SELECT auth.uid()));
    CREATE POLICY own ON realtime.messages FOR SELECT TO authenticated USING (realtime.topic() = 'own:' || (SELECT auth.uid()));
    CREATE POLICY speak ON realtime.messages FOR INSERT TO authenticated WITH CHECK (realtime.topic() = 'own:' || (SELECT auth.uid()));
    GRANT USAGE ON SCHEMA public TO authenticated;
    GRANT SELECT ON public.notes TO authenticated`
  await prepareDatabase(database, schema, ['notes'])
  node = await TestNode.start(database.url, {
    CHANNELS: JSON.stringify([{ pattern: '*', history: { length: 100, age: '1h' } }]),
  })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

/** What the package leaves to others: 1.0.0 in one object for each frame. */
const codecs: Readonly<Record<string, Partial<SocketConnectOption>>> = {
  '1.0.0': {
    vsn: '1.0.0',
    encode: (message, callback) => void callback(JSON.stringify(message)),
    decode: (text, callback) => void callback(JSON.parse(text)),
  },
  '2.0.0': { vsn: '2.0.0' },
}

type Event = readonly [event: string, payload: Record<string, unknown>]

class Listener {
  readonly heard: Event[] = []
  readonly channel: Channel

  constructor(channel: Channel, ...events: readonly string[]) {
    this.channel = channel
    for (const event of events) channel.on(event, payload => void this.heard.push([event, payload]))
  }

  join(): Promise<Record<string, unknown>> {
    return pushed(this.channel.join())
  }

  async until(event: string, times = 1): Promise<void> {
    await until(() => this.heard.filter(([each]) => each === event).length >= times)
  }

  /** Of the broadcasts. */
  get events(): unknown[] {
    return this.heard.flatMap(([event, payload]) => (event === 'broadcast' ? [payload.event] : []))
  }
}

interface Push {
  receive(status: string, callback: (response: Record<string, unknown>) => void): Push
}

const pushed = (push: Push): Promise<Record<string, unknown>> =>
  new Promise((resolve, reject) => {
    push
      .receive('ok', resolve)
      .receive('error', response => reject(new Error(String(response.reason))))
      .receive('timeout', () => reject(new Error('timed out')))
  })

describe.each(Object.keys(codecs))('vsn %s', vsn => {
  const sockets: Socket[] = []

  afterAll(() => {
    for (const socket of sockets) socket.disconnect()
  })

  /** @param sub of the token that is its key */
  async function connect(sub: string, url = node.url): Promise<Socket> {
    const socket = new Socket(`${url.replace(/^http/, 'ws')}/realtime/v1`, {
      params: { apikey: await tokenFor(sub) },
      transport: WebSocket,
      ...codecs[vsn],
    })
    sockets.push(socket)
    socket.connect()
    return socket
  }

  const broadcast = (event: string, payload = {}) => ({ type: 'broadcast', event, payload })

  test('joins, pushes and receives', async () => {
    const topic = `realtime:${randomUUID()}`
    const config = { broadcast: { ack: true } }
    const from = new Listener((await connect(person())).channel(topic, { config }), 'broadcast')
    const to = new Listener((await connect(person())).channel(topic, { config }), 'broadcast')
    expect(await from.join()).toEqual({ postgres_changes: [] })
    await to.join()
    expect(await pushed(from.channel.push('broadcast', broadcast('shout', { n: 1 })))).toEqual({})
    await pushed(to.channel.push('broadcast', broadcast('end')))
    await from.until('broadcast')
    expect(to.heard).toEqual([['broadcast', { ...broadcast('shout', { n: 1 }), meta: expect.any(Object) }]])
    expect(from.events).toEqual(['end'])
    await expect(pushed(from.channel.push('nonsense', {}))).rejects.toThrow(/BAD_FRAME/)
    expect(await pushed(from.channel.leave())).toEqual({})
    expect(from.channel.state).toBe('closed')
  })

  test('hears changes, and those that it missed when it comes back', async () => {
    const sub = person()
    await using proxy = await FaultProxy.before(node.url)
    const socket = await connect(sub, proxy.url)
    const asked = { event: '*', schema: 'public', table: 'notes', filter: 'body=neq.hidden' }
    const channel = socket.channel('realtime:notes', { config: { postgres_changes: [asked] } })
    const notes = new Listener(channel, 'postgres_changes', 'system')
    let errors = 0
    channel.onError(() => {
      errors += 1
    })
    const { postgres_changes } = await notes.join()
    expect(postgres_changes).toEqual([{ ...asked, id: expect.any(Number) }])
    const first = 1000 + Math.floor(Math.random() * 1e8)
    const add = (id: number, owner = sub, body = '') =>
      database.query(`INSERT INTO notes VALUES (${id}, '${owner}', '${body}')`)
    await add(first)
    await add(first + 1, person())
    await add(first + 2, sub, 'hidden')
    await notes.until('postgres_changes')
    proxy.link.isRefusing = true
    proxy.link.cut()
    await until(() => errors > 0)
    await add(first + 3)
    proxy.link.isRefusing = false
    await until(() => channel.state === 'joined')
    await add(first + 4)
    const ids = () =>
      notes.heard.flatMap(([event, { data }]) =>
        event === 'postgres_changes' ? [(data as { record: { id: number } }).record.id - first] : [],
      )
    await until(() => ids().includes(4))
    // What came just before the break may come again.
    expect([...new Set(ids())]).toEqual([0, 3, 4])
  })

  test('joins again by itself after it was shut out', async () => {
    const sub = person()
    const socket = await connect(sub)
    const channel = new Listener(
      socket.channel(`realtime:own:${sub}`, { config: { private: true }, access_token: await tokenFor(sub) }),
      'broadcast',
      'system',
    )
    let errors = 0
    channel.channel.onError(() => {
      errors += 1
    })
    await channel.join()
    await database.query(`SELECT tidegate.kick(sub => '${sub}', topic => 'own:${sub}')`)
    await until(() => errors === 1)
    await until(() => channel.channel.state === 'joined')
    await database.query(`SELECT realtime.send('{}', 'end', 'own:${sub}')`)
    await channel.until('broadcast')
    expect(channel.events).toEqual(['end'])
    expect(channel.heard.filter(([event]) => event === 'system')).toHaveLength(1)
  })

  test('channels of one socket with tokens of their own', async () => {
    const [ann, bob] = [person(), person()]
    const socket = await connect(person())
    const own = async (sub: string, token: string) => {
      const params = { config: { private: true }, access_token: await tokenFor(token) }
      return new Listener(socket.channel(`realtime:own:${sub}`, params), 'broadcast')
    }
    const ofAnn = await own(ann, ann)
    const ofBob = await own(bob, bob)
    await ofAnn.join()
    await ofBob.join()
    const strange = await own(person(), ann)
    await expect(strange.join()).rejects.toThrow(/^Unauthorized: /)
    strange.channel.leave()
    await database.query(
      `SELECT realtime.send('{}', 'to ann', 'own:${ann}'), realtime.send('{}', 'to bob', 'own:${bob}')`,
    )
    await ofAnn.until('broadcast')
    await ofBob.until('broadcast')
    expect([ofAnn.events, ofBob.events]).toEqual([['to ann'], ['to bob']])
  })

  test('presence', async () => {
    const topic = `realtime:${randomUUID()}`
    const states: (() => unknown)[] = []
    const channels: Channel[] = []
    for (const key of ['ann', 'bob']) {
      const channel = (await connect(person())).channel(topic, { config: { presence: { key, enabled: true } } })
      const presence = new Presence(channel)
      states.push(() =>
        Object.fromEntries(
          presence.list((name: string, { metas }: { metas: { mood: string }[] }) => [
            name,
            metas.map(each => each.mood),
          ]),
        ),
      )
      await pushed(channel.join())
      channels.push(channel)
    }
    const track = (channel: Channel, mood: string) =>
      pushed(channel.push('presence', { type: 'presence', event: 'track', payload: { mood } }))
    expect(await track(channels[0]!, 'glad')).toEqual({})
    await track(channels[1]!, 'sad')
    await track(channels[1]!, 'better')
    for (const state of states) await expect.poll(state).toEqual({ ann: ['glad'], bob: ['better'] })
    await pushed(channels[1]!.leave())
    await expect.poll(states[0]!).toEqual({ ann: ['glad'] })
  })
})
