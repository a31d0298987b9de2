// The client's channels against a real node: what is sent, kept, cut off, refused and revoked.
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type Channel, type Client, type ClientOptions, createClient, type Gap } from '../../../src/client/client.ts'
import { channelPolicies } from '../../support/channel-client.ts'
import { eventually } from '../../support/eventually.ts'
import { FaultyLink } from '../../support/faulty-link.ts'
import { person, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase
let node: TestNode
const [ann, bob] = [person(), person()]

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
  await database.query(
    `INSERT INTO members SELECT room, who::uuid FROM generate_series(1, 9) room, unnest(ARRAY['${ann}', '${bob}']) who`,
  )
  node = await TestNode.start(database.url, {
    CHANNELS: JSON.stringify([
      { pattern: 'room:2', history: { length: 1000, age: '10m' }, rate: { perSecond: 1000, burst: 1000 } },
      { pattern: 'room:3', presence: false },
      { pattern: 'room:4', presence: { listUpTo: 1 } },
      { pattern: 'room:7*', history: { length: 5, age: '10m' } },
      { pattern: 'lobby', public: true, idempotency: '1s' },
    ]),
  })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

interface Person {
  readonly tide: Client
  readonly errors: Error[]
  readonly link: FaultyLink
}

/** Two clients on links of their own. */
async function two(options: Partial<ClientOptions> = {}): Promise<{ ann: Person; bob: Person } & AsyncDisposable> {
  const connect = async (sub: string): Promise<Person> => {
    const link = await FaultyLink.to(node.url)
    const errors: Error[] = []
    const token = await tokenFor(sub)
    const tide = createClient(link.url, {
      token,
      transports: ['websocket'],
      onError: error => errors.push(error),
      ...options,
    })
    return { tide, errors, link }
  }
  const both = { ann: await connect(ann), bob: await connect(bob) }
  return {
    ...both,
    async [Symbol.asyncDispose]() {
      for (const { tide, link } of [both.ann, both.bob]) {
        tide.close()
        await link[Symbol.asyncDispose]()
      }
    },
  }
}

/** What comes of an event, in order. */
function hear(channel: Channel, event = 'say'): unknown[] {
  const heard: unknown[] = []
  channel.on(event, ({ payload }) => heard.push(payload))
  return heard
}

const isLive = (...channels: Channel[]): Promise<void> =>
  eventually(() => {
    for (const channel of channels) expect(channel.status).toBe('live')
  })

test('what one says the other hears, with who said it; not oneself, unless one wants to', async () => {
  await using run = await two()
  const [anns, bobs] = [run.ann.tide.channel('room:1', { self: true }), run.bob.tide.channel('room:1')]
  const [annHears, bobHears] = [hear(anns), hear(bobs)]
  const quiet = hear(run.ann.tide.channel('room:1'))
  const all: unknown[] = []
  bobs.on('*', message => all.push(message))
  await isLive(anns, bobs)
  const sent = await anns.send('say', { text: 'hello' })
  await bobs.send('say', 'hi')
  await eventually(() => expect(annHears).toEqual([{ text: 'hello' }, 'hi']))
  expect([bobHears, quiet]).toEqual([[{ text: 'hello' }], ['hi']])
  expect(sent).toMatchObject({ duplicate: false, id: expect.any(String), position: expect.any(String) })
  expect(all).toMatchObject([
    { event: 'say', id: sent.id, sender: { user: ann, connection: anns.connection }, sentAt: expect.any(String) },
  ])
})

test('a message to one connection or one user comes to that one alone', async () => {
  await using run = await two()
  const [anns, bobs] = [run.ann.tide.channel('room:1'), run.bob.tide.channel('room:1')]
  const [annHears, bobHears] = [hear(anns), hear(bobs)]
  await isLive(anns, bobs)
  await anns.send('say', 'by name', { to: { connection: bobs.connection! } })
  await bobs.send('say', 'by user', { to: { user: ann } })
  await anns.send('say', 'to nobody', { to: { user: person() } })
  await anns.send('say', 'to all')
  await eventually(() => expect(bobHears).toEqual(['by name', 'to all']))
  expect(annHears).toEqual(['by user'])
})

test('bytes come as the bytes they were', async () => {
  await using run = await two()
  const [anns, bobs] = [run.ann.tide.channel('room:1'), run.bob.tide.channel('room:1')]
  const heard: unknown[] = []
  bobs.on('ice', ({ binary, payload }) => heard.push([binary, payload]))
  await isLive(bobs)
  const bytes = Uint8Array.from({ length: 40_000 }, (_, n) => n % 256)
  await anns.send('ice', bytes)
  await anns.send('ice', bytes.slice(3, 5).buffer)
  await anns.send('ice', new Uint8Array())
  await eventually(() =>
    expect(heard).toEqual([
      [bytes, undefined],
      [bytes.slice(3, 5), undefined],
      [new Uint8Array(), undefined],
    ]),
  )
})

test('[P4] after a cut, a channel with a history goes on where it stood: what was said meanwhile comes once, in order', async () => {
  await using run = await two()
  const [anns, bobs] = [run.ann.tide.channel('room:2'), run.bob.tide.channel('room:2')]
  const heard = hear(anns)
  await isLive(anns)
  for (let n = 0; n < 30; n++) {
    if (n % 10 === 5) run.ann.link.cut()
    await bobs.send('say', n)
  }
  await eventually(() => expect(heard).toEqual(Array.from({ length: 30 }, (_, n) => n)))
  await isLive(anns)
  expect([run.ann.errors, run.bob.errors]).toEqual([[], []])
})

test('[P4] sends while the link is cut again and again come once, in the order of sending', async () => {
  await using run = await two()
  const [anns, bobs] = [run.ann.tide.channel('room:2'), run.bob.tide.channel('room:2')]
  const heard = hear(anns, 'cut')
  await isLive(anns)
  const sent: Promise<unknown>[] = []
  for (let n = 0; n < 60; n++) {
    if (n % 12 === 6) run.bob.link.cut()
    sent.push(bobs.send('cut', n))
    await new Promise(resolve => setTimeout(resolve, 5))
  }
  await Promise.all(sent)
  await eventually(() => expect(heard).toHaveLength(60))
  expect(heard).toEqual(Array.from({ length: 60 }, (_, n) => n))
})

test('[P4] of what was missed without a history the listener is told, or the client where nobody listens', async () => {
  await using run = await two()
  const [anns, bobs] = [run.ann.tide.channel('room:1'), run.bob.tide.channel('room:1')]
  const heard = hear(anns)
  const gaps: Gap[] = []
  const endGaps = anns.onGap(gap => gaps.push(gap))
  await isLive(anns)
  await bobs.send('say', 'before')
  await eventually(() => expect(heard).toEqual(['before']))
  const missTwo = async (): Promise<void> => {
    run.ann.link.isRefusing = true
    run.ann.link.cut()
    await eventually(() => expect(anns.status).toBe('offline'))
    await bobs.send('say', 'missed')
    await bobs.send('say', 'missed')
    run.ann.link.isRefusing = false
    await isLive(anns)
  }
  await missTwo()
  await eventually(() => expect(gaps).toMatchObject([{ code: 'MESSAGES_LOST', missed: 2 }]))
  endGaps()
  expect(run.ann.errors).toEqual([])
  await missTwo()
  await eventually(() => expect(String(run.ann.errors)).toContain('room:1 were missed'))
  await bobs.send('say', 'after')
  await eventually(() => expect(heard).toEqual(['before', 'after']))
})

test('what was said is read in pages, both ways', async () => {
  await using run = await two()
  const room = run.ann.tide.channel('room:2')
  const first = await room.send('page', 0)
  for (let n = 1; n < 7; n++) await room.send('page', n)
  const into = async (history: ReturnType<Channel['history']>): Promise<unknown[][]> => {
    const pages: unknown[][] = []
    for await (const { messages } of history) {
      pages.push(messages.filter(({ event }) => event === 'page').map(({ payload }) => payload))
      if (pages.at(-1)!.includes(0)) break
    }
    return pages
  }
  expect(await into(room.history({ last: 3 }))).toEqual([[4, 5, 6], [1, 2, 3], expect.arrayContaining([0])])
  expect(await into(room.history({ after: first.position, limit: 4 }))).toEqual([
    [1, 2, 3, 4],
    [5, 6],
  ])
  const before = await room.history({ before: first.position, limit: 2 }).next()
  expect(before?.messages.length).toBeLessThanOrEqual(2)
  await expect(run.ann.tide.channel('room:1').history().next()).rejects.toMatchObject({ code: 'HISTORY_OFF' })
  await expect(run.ann.tide.channel('room:77').history().next()).rejects.toMatchObject({ code: 'CHANNEL_REFUSED' })
})

test('the newest messages come first to who asks for them', async () => {
  await using run = await two()
  for (const n of [1, 2, 3]) await run.bob.tide.channel('room:7').send('say', n)
  const heard = hear(run.ann.tide.channel('room:7', { last: 2 }))
  await eventually(() => expect(heard).toEqual([2, 3]))
})

test('[P4] what has left the history while one was away is told as a gap', async () => {
  await using run = await two()
  const [anns, bobs] = [run.ann.tide.channel('room:7'), run.bob.tide.channel('room:7')]
  const heard = hear(anns, 'many')
  const gaps: Gap[] = []
  anns.onGap(gap => gaps.push(gap))
  await isLive(anns)
  run.ann.link.isRefusing = true
  run.ann.link.cut()
  for (let n = 0; n < 12; n++) await bobs.send('many', n)
  run.ann.link.isRefusing = false
  await eventually(() => expect(gaps).toMatchObject([{ code: 'HISTORY_PASSED' }]))
  await bobs.send('many', 'after')
  await eventually(() => expect(heard.at(-1)).toBe('after'))
})

test('who is there is told to both, changes, and outlives a cut without a leave', async () => {
  await using run = await two()
  const [anns, bobs] = [
    run.ann.tide.channel<Record<string, null>, { name: string }>('room:5').presence,
    run.bob.tide.channel<Record<string, null>, { name: string }>('room:5').presence,
  ]
  const names = (): string[] => anns.here.map(({ meta }) => meta.name).sort()
  const told: string[] = []
  anns.subscribe(({ joined, left, updated }) => {
    for (const { meta } of joined) told.push(`${meta.name} joined`)
    for (const { meta } of updated) told.push(`${meta.name} updated`)
    for (const { meta } of left) told.push(`${meta.name} left`)
  })
  await anns.track({ name: 'ann' })
  await bobs.track({ name: 'bob' })
  await eventually(() => expect(names()).toEqual(['ann', 'bob']))
  await bobs.update({ name: 'bob, away' })
  await eventually(() => expect(names()).toEqual(['ann', 'bob, away']))
  const { here } = anns
  expect(anns.here).toBe(here)
  const ofBob = (): string | undefined => anns.here.find(({ key }) => key === bob)?.connection
  const old = ofBob()
  run.bob.link.cut()
  run.ann.link.cut()
  // It is back within a moment.
  await vi.waitFor(() => expect(anns.state.isCurrent).toBe(false), { timeout: 20_000, interval: 1 })
  expect(names()).toEqual(['ann', 'bob, away'])
  await eventually(() => expect(anns.state.isCurrent).toBe(true))
  // Whoever goes before that is taken off when the grace is over.
  await eventually(() => expect([old, undefined]).not.toContain(ofBob()))
  await bobs.untrack()
  await eventually(() => expect(names()).toEqual(['ann']))
  expect(anns.count).toBe(1)
  expect(told.filter(line => !line.endsWith('updated'))).toEqual(['ann joined', 'bob joined', 'bob, away left'])
  expect(run.ann.errors).toEqual([])
})

test('above what the rule lists there is the count alone', async () => {
  await using run = await two()
  const [anns, bobs] = [run.ann.tide.channel('room:4').presence, run.bob.tide.channel('room:4').presence]
  anns.subscribe(() => {})
  await anns.track(null)
  await eventually(() => expect(anns.state).toMatchObject({ count: 1, isListed: true, here: [{ key: ann }] }))
  await bobs.track(null)
  await eventually(() => expect(anns.state).toMatchObject({ count: 2, isListed: false, here: [] }))
  await bobs.untrack()
  await eventually(() => expect(anns.state).toMatchObject({ count: 1, isListed: true, here: [{ key: ann }] }))
})

test('asking who is there of a channel that one is in loses nothing, with a history and without', async () => {
  await using run = await two()
  for (const topic of ['room:1', 'room:2']) {
    const [anns, bobs] = [run.ann.tide.channel(topic), run.bob.tide.channel(topic)]
    const heard = hear(anns, 'more')
    const gaps: Gap[] = []
    anns.onGap(gap => gaps.push(gap))
    await isLive(anns, bobs.status === 'idle' ? anns : bobs)
    await bobs.send('more', 1)
    const seen: number[] = []
    anns.presence.subscribe(({ count, isCurrent }) => isCurrent && seen.push(count))
    await eventually(() => expect(seen).toEqual([0]))
    await bobs.send('more', 2)
    await eventually(() => expect(heard).toEqual([1, 2]))
    expect(gaps).toEqual([])
  }
})

test('[P8] what the server refuses is rejected with its code, and the place in the channel stays', async () => {
  await using run = await two()
  const room = run.ann.tide.channel('room:3')
  const heard = hear(room)
  await isLive(room)
  await expect(room.presence.track(null)).rejects.toMatchObject({ code: 'PRESENCE_OFF' })
  await expect(room.send('say', 'x'.repeat(64_600))).rejects.toMatchObject({ code: 'PAYLOAD_TOO_LARGE' })
  await expect(room.send('say', 1, { after: '999999999999' })).rejects.toMatchObject({ code: 'TXID_INVALID' })
  await expect(run.ann.tide.channel('room:77').send('say', 1)).rejects.toMatchObject({ code: 'CHANNEL_REFUSED' })
  await run.bob.tide.channel('room:3').send('say', 'still here')
  await eventually(() => expect(heard).toEqual(['still here']))
  expect(run.ann.link.accepted).toBe(1)
})

test('[P3] a revocation closes the channel: who was in it is told, sees nobody, and what waits is rejected', async () => {
  await using run = await two()
  const [anns, bobs] = [run.ann.tide.channel('room:6'), run.bob.tide.channel('room:6')]
  const heard = hear(bobs)
  bobs.presence.subscribe(() => {})
  await anns.presence.track({ name: 'ann' })
  await bobs.presence.track({ name: 'bob' })
  await eventually(() => expect(bobs.presence.here).toHaveLength(2))
  await database.query(`DELETE FROM members WHERE room_id = 6 AND user_id = '${bob}'`)
  await eventually(() => expect([bobs.status, bobs.error?.code]).toEqual(['refused', 'CHANNEL_CLOSED']))
  expect(bobs.presence.state).toMatchObject({ here: [], count: 0, isCurrent: false })
  await expect(bobs.send('say', 1)).rejects.toMatchObject({ code: 'CHANNEL_CLOSED' })
  await anns.send('say', 'among us')
  const joining = `INSERT INTO members VALUES (6, '${bob}') RETURNING pg_current_xact_id()::text AS txid`
  const [joined] = await database.query<{ txid: string }>(joining)
  // Whoever asks again is let in again, once the node knows of it.
  await run.bob.tide.waitFor(joined!.txid)
  const again = hear(bobs)
  await isLive(bobs)
  await anns.send('say', 'welcome back')
  await eventually(() => expect(again).toEqual(['welcome back']))
  expect(heard).toEqual(['welcome back'])
})

test('who was kicked comes back by itself', async () => {
  await using run = await two()
  const room = run.ann.tide.channel('room:8')
  const heard = hear(room)
  const statuses: string[] = []
  room.onStatus((status, error) => statuses.push(`${status} ${error?.code}`))
  await isLive(room)
  await database.query(`SELECT tidegate.kick(sub => '${ann}', topic => 'room:8')`)
  await eventually(() => expect(statuses).toContain('catching up KICKED'))
  await isLive(room)
  await run.bob.tide.channel('room:8').send('say', 'back')
  await eventually(() => expect(heard).toEqual(['back']))
})

test('what is said offline waits, in order, and is sent when the client is back; nothing waits where it is not to', async () => {
  await using run = await two()
  const [anns, bobs] = [run.ann.tide.channel('room:2'), run.bob.tide.channel('room:2')]
  const heard = hear(bobs, 'offline')
  anns.join()
  await isLive(anns, bobs)
  run.ann.link.isRefusing = true
  run.ann.link.cut()
  await eventually(() => expect(anns.status).toBe('offline'))
  const sent = Array.from({ length: 100 }, (_, n) => anns.send('offline', n))
  await expect(anns.send('offline', 'one too many')).rejects.toMatchObject({ code: 'SEND_QUEUE_FULL' })
  await expect(anns.send('offline', 'now', { offline: 'refuse' })).rejects.toMatchObject({ code: 'CLIENT_OFFLINE' })
  expect(anns.sendNow('offline', 'cursor')).toBe(false)
  run.ann.link.isRefusing = false
  const answers = await Promise.all(sent)
  await eventually(() => expect(heard).toEqual(Array.from({ length: 100 }, (_, n) => n)))
  expect(new Set(answers.map(({ id }) => id)).size).toBe(100)
  expect(anns.sendNow('offline', 'cursor')).toBe(true)
  await eventually(() => expect(heard.at(-1)).toBe('cursor'))
})

test('[P8] logging out and closing reject what waits', async () => {
  await using run = await two()
  for (const end of ['logout', 'close'] as const) {
    const room = run.ann.tide.channel('room:1')
    room.join()
    await isLive(room)
    run.ann.link.isRefusing = true
    run.ann.link.cut()
    await eventually(() => expect(room.status).toBe('offline'))
    const sent = room.send('say', 1)
    const track = room.presence.track(1)
    const rejected = [
      expect(sent).rejects.toMatchObject({ code: 'CLIENT_CLOSED' }),
      expect(track).rejects.toMatchObject({ code: 'CLIENT_CLOSED' }),
    ]
    await run.ann.tide[end]()
    await Promise.all(rejected)
    run.ann.link.isRefusing = false
  }
  await expect(run.ann.tide.channel('room:1').send('say', 1)).rejects.toMatchObject({ code: 'CLIENT_CLOSED' })
})

test('a public channel, and bytes too many in a row, do not break the connection', async () => {
  await using run = await two()
  const [anns, bobs] = [
    run.ann.tide.channel('lobby', { private: false }),
    run.bob.tide.channel('lobby', { private: false }),
  ]
  const heard = hear(bobs)
  await isLive(bobs)
  const key = { idempotencyKey: `once ${person()}` }
  const [first, second] = [await anns.send('say', 1, key), await anns.send('say', 1, key)]
  expect([first.duplicate, second.duplicate, second.id === first.id]).toEqual([false, true, true])
  const many = Array.from({ length: 90 }, (_, n) => anns.send('say', n))
  await Promise.all(many)
  await eventually(() => expect(heard).toEqual([1, ...Array.from({ length: 90 }, (_, n) => n)]))
})
