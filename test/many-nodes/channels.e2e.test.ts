// Channels over two nodes, with a Redis and connections to it that can be hurt.
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { NodeProcess } from '../faults/node-process.ts'
import type { JoinedChannel } from '../support/channel-client.ts'
import { person, SseStream, tokenFor } from '../support/node.ts'
import { expectWithin } from '../support/within.ts'
import { ChannelNodes } from './channel-nodes.ts'

/** Longer than it takes to come back on a busy machine. */
const graceMs = 5000
/** A node that is gone is missed after five seconds. */
const leaseMs = 5000

const rules = [
  { pattern: 'news', public: true },
  { pattern: 'room:9*', history: { length: 1000, age: '10m' }, presence: { grace: '1500ms', diff: '50ms' } },
  { pattern: '*', presence: { grace: `${graceMs}ms`, diff: '50ms' }, rate: { perSecond: 1000, burst: 1000 } },
]

let nodes: ChannelNodes<NodeProcess>

const start = (databaseUrl: string, redisUrl: string): Promise<NodeProcess> =>
  NodeProcess.start(databaseUrl, { REDIS_URL: redisUrl, CHANNELS: JSON.stringify(rules) })

beforeAll(async () => {
  nodes = await ChannelNodes.start(start, node => node.kill())
})
afterEach(() => nodes.settle())
afterAll(() => nodes?.[Symbol.asyncDispose]())

const removeFrom = (topic: string, member: string): Promise<unknown> =>
  nodes.database.query(`DELETE FROM members WHERE room_id = ${topic.slice(5)} AND user_id = '${member}'`)

const got = (channel: JoinedChannel, count: number): Promise<void> =>
  channel.waitFor(() => channel.messages.length >= count)

test('[P5] what is said at one node is heard at both: over WebSocket, POST and SQL, JSON and bytes', async () => {
  const [ann, bob, cid] = [person(), person(), person()]
  const topic = await nodes.roomOf([ann, bob, cid])
  const [inA, inB] = [
    await (await nodes.open(nodes.a, ann)).join(topic),
    await (await nodes.open(nodes.b, bob)).join(topic),
  ]
  using stream = await SseStream.open(nodes.b, `/v1/channels/${encodeURIComponent(topic)}`, await tokenFor(cid))
  await stream.until(({ event }) => event === 'joined')
  const sent = await inA.send('one', { n: 1 })
  await got(inB, 1)
  await inB.send('two', undefined, { binary: Buffer.from([0, 255]).toString('base64') })
  await got(inA, 1)
  const posted = await fetch(`${nodes.a.url}/v1/channels/${encodeURIComponent(topic)}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${await tokenFor(cid)}`, 'content-type': 'application/json' },
    body: JSON.stringify([
      { event: 'three', payload: 3 },
      { event: 'four', payload: 4 },
    ]),
  })
  expect(posted.status).toBe(200)
  await got(inB, 3)
  await nodes.database.query(`SELECT realtime.send('{"n": 5}', 'five', '${topic}')`)
  await got(inB, 4)
  await got(inA, 4)
  expect(inB.messages.map(({ event }) => event)).toEqual(['one', 'three', 'four', 'five'])
  expect(inA.messages.map(({ event }) => event)).toEqual(['two', 'three', 'four', 'five'])
  expect(inB.messages[0]).toMatchObject({ id: sent.message, payload: { n: 1 }, sender: { user: ann } })
  expect(inA.messages[0]).toMatchObject({ binary: 'AP8=', sender: { user: bob } })
  expect(inA.messages[3]).toMatchObject({ payload: { n: 5 }, sender: null })
  await stream.waitFor(() => stream.events.filter(({ event }) => event === 'message').length === 5)
})

test('a message to a user or a connection finds it on the other node, and nobody else', async () => {
  const [ann, bob] = [person(), person()]
  const topic = await nodes.roomOf([ann, bob])
  const inA = await (await nodes.open(nodes.a, ann)).join(topic)
  const [here, there] = [await nodes.open(nodes.b, bob), await nodes.open(nodes.b, bob)]
  const [first, second] = [await here.join(topic), await there.join(topic)]
  await inA.send('offer', 'to one', { to: { connection: there.connection } })
  await inA.send('offer', 'to both', { to: { user: bob } })
  await got(second, 2)
  await got(first, 1)
  expect([first.payloads, second.payloads]).toEqual([['to both'], ['to one', 'to both']])
})

test('[P4] what is tried again under an idempotency key at the other node is sent once', async () => {
  const [ann, bob] = [person(), person()]
  const topic = await nodes.roomOf([ann, bob])
  const [inA, inB, ear] = [
    await (await nodes.open(nodes.a, ann)).join(topic),
    await (await nodes.open(nodes.b, ann)).join(topic),
    await (await nodes.open(nodes.b, bob)).join(topic),
  ]
  const first = await inA.send('said', 1, { idempotencyKey: 'once' })
  const again = await inB.send('said', 1, { idempotencyKey: 'once' })
  expect(again).toMatchObject({ message: first.message, position: first.position, duplicate: true })
  await inA.send('said', 2)
  await got(ear, 2)
  expect(ear.payloads).toEqual([1, 2])
})

test('[P3] a member removed while typing: its channel is closed at that commit, on each node, and it gets nothing after', async () => {
  const [ann, bob] = [person(), person()]
  const topic = await nodes.roomOf([ann, bob])
  const inA = await (await nodes.open(nodes.a, ann)).join(topic)
  const bobs = [await (await nodes.open(nodes.a, bob)).join(topic), await (await nodes.open(nodes.b, bob)).join(topic)]
  let stopped = false
  const typing = (async () => {
    for (let n = 0; !stopped; n++) await inA.send('typing', n)
  })()
  await got(bobs[1]!, 20)
  await removeFrom(topic, bob)
  const [{ xid }] = (await nodes.database.query('SELECT pg_current_xact_id()::text AS xid')) as [{ xid: string }]
  await inA.send('secret', 'after', { after: xid })
  for (const each of bobs) await each.waitFor(() => each.ended !== null)
  stopped = true
  await typing
  for (const each of bobs) {
    expect(each.ended).toMatchObject({ code: 'CHANNEL_CLOSED' })
    expect(each.messages.some(({ event }) => event === 'secret')).toBe(false)
    await expect(each.send('typing', 'still')).rejects.toThrow()
  }
})

test('[P3] a revocation that one node has applied holds for what is said there, also at a node that has not come so far', async () => {
  const [ann, bob, cid] = [person(), person(), person()]
  const topic = await nodes.roomOf([ann, bob, cid])
  const [inA, bobInB, cidInB] = [
    await (await nodes.open(nodes.a, ann)).join(topic),
    await (await nodes.open(nodes.b, bob)).join(topic),
    await (await nodes.open(nodes.b, cid)).join(topic),
  ]
  const bobInA = await (await nodes.open(nodes.a, bob)).join(topic)
  const [newsA, newsB] = [
    await (await nodes.open(nodes.a, ann)).join('news', { private: false }),
    await (await nodes.open(nodes.b, bob)).join('news', { private: false }),
  ]
  // Rows do not come to the second node; what is published does.
  nodes.link.freeze(['down'], opening => opening.includes('reader'))
  await removeFrom(topic, bob)
  await bobInA.waitFor(() => bobInA.ended !== null)
  await inA.send('said', 'after the revocation')
  // Published behind it over the same connection, and for nobody to be shut out from: it waits for no rows.
  await newsA.send('said', 'public')
  await got(newsB, 1)
  expect([bobInB.ended, bobInB.messages, cidInB.messages]).toEqual([null, [], []])
  nodes.link.thaw()
  await got(cidInB, 1)
  await bobInB.waitFor(() => bobInB.ended !== null)
  expect(bobInB.told).toMatchObject([{ kind: 'error', code: 'CHANNEL_CLOSED' }])
})

test('[P4] [P5] with a history: over to the other node in the middle, nothing lost or repeated; SQL among it in order', async () => {
  const [ann, bob] = [person(), person()]
  const topic = await nodes.roomOf([ann, bob], true)
  const inA = await (await nodes.open(nodes.a, ann)).join(topic)
  let client = await nodes.open(nodes.b, bob)
  let ear = await client.join(topic)
  const heard: unknown[] = []
  for (let n = 1; n <= 60; n++) {
    if (n % 3 === 0) await nodes.database.query(`SELECT realtime.send(to_jsonb(${n}), 'said', '${topic}')`)
    else await inA.send('said', n)
    if (n % 20 !== 0) continue
    await sleep(50)
    client.cut()
    heard.push(...ear.payloads)
    await inA.send('said', n + 0.5)
    client = await nodes.open(n % 40 === 0 ? nodes.b : nodes.a, bob)
    ear = await client.join(topic, { since: ear.since! })
    expect(ear.joined).toMatchObject({ resumed: true, history: true })
  }
  await inA.send('said', 'end')
  await ear.waitFor(() => ear.payloads.at(-1) === 'end')
  heard.push(...ear.payloads)
  const numbers = heard
    .filter(each => each !== 'end')
    .map(each => (typeof each === 'object' ? Number((each as { id?: string }).id) : each))
  expect(new Set(ear.messages.map(({ id }) => id)).size).toBe(ear.messages.length)
  expect(numbers).toHaveLength(63)
  expect(ear.told.every(({ kind }) => kind === 'message')).toBe(true)
})

test('[P4] a thousand messages of one transaction come in order to both nodes, with and without history', async () => {
  const [ann, bob] = [person(), person()]
  for (const kept of [false, true]) {
    const topic = await nodes.roomOf([ann, bob], kept)
    const ears = [
      await (await nodes.open(nodes.a, ann)).join(topic),
      await (await nodes.open(nodes.b, bob)).join(topic),
    ]
    await nodes.database.query('BEGIN')
    await nodes.database.query(`SELECT realtime.send('{"n": 0}', 'never', '${topic}')`)
    await nodes.database.query('ROLLBACK')
    await nodes.database.query(
      `SELECT realtime.send(jsonb_build_object('n', n), 'counted', '${topic}') FROM generate_series(1, 1000) n`,
    )
    for (const ear of ears) {
      await ear.waitFor(() => ear.messages.length >= 1000, 20_000)
      expect(ear.payloads.map(payload => (payload as { n: number }).n)).toEqual(
        Array.from({ length: 1000 }, (_, n) => n + 1),
      )
    }
  }
})

/** Those who are there, as a member was told, by key. */
function presentAs(channel: JoinedChannel): string[] {
  const here = new Map<string, string>()
  for (const each of channel.told) {
    if (each.kind !== 'presence') continue
    if (each.here !== undefined) here.clear()
    for (const { ref, key } of [...(each.here ?? []), ...(each.joined ?? []), ...(each.updated ?? [])])
      here.set(ref, key)
    for (const { ref } of each.left ?? []) here.delete(ref)
  }
  return [...here.values()].sort()
}

const leavesOf = (channel: JoinedChannel, key: string): number =>
  channel.told.reduce(
    (sum, each) => sum + (each.kind === 'presence' ? (each.left ?? []).filter(one => one.key === key).length : 0),
    0,
  )
const joinsOf = (channel: JoinedChannel, key: string): number =>
  channel.told.reduce(
    (sum, each) => sum + (each.kind === 'presence' ? (each.joined ?? []).filter(one => one.key === key).length : 0),
    0,
  )

test('who is there: on both nodes, with two connections of one user, and a quick return that nobody notices', async () => {
  const [ann, bob] = [person(), person()]
  const topic = await nodes.roomOf([ann, bob])
  const watcher = await (await nodes.open(nodes.a, ann)).join(topic, {
    presence: true,
    track: { meta: { name: 'Ann' } },
  })
  const [one, two] = [await nodes.open(nodes.a, bob), await nodes.open(nodes.b, bob)]
  await one.join(topic, { track: { meta: 1 } })
  await two.join(topic, { track: { meta: 2 } })
  await watcher.waitFor(() => presentAs(watcher).length === 3)
  expect(presentAs(watcher)).toEqual([ann, bob, bob].sort())
  // Cut, and back at the other node within the grace.
  two.cut()
  await sleep(300)
  const back = await nodes.open(nodes.a, bob)
  await back.join(topic, { track: { meta: 2 } })
  await sleep(graceMs + 1000)
  expect([leavesOf(watcher, bob), joinsOf(watcher, bob), presentAs(watcher).length]).toEqual([0, 2, 3])
  // One that says that it goes, goes at once; the other stays.
  back.close()
  await watcher.waitFor(() => leavesOf(watcher, bob) === 1)
  expect(presentAs(watcher)).toEqual([ann, bob].sort())
})

test('[P8] kill -9 of a node: its members leave once, within its lease and the grace', async () => {
  const [ann, bob] = [person(), person()]
  const topic = await nodes.roomOf([ann, bob])
  const watcher = await (await nodes.open(nodes.a, ann)).join(topic, { presence: true })
  const victim = await start(nodes.database.url, nodes.redis.url)
  const lost = await nodes.open(victim, bob)
  await lost.join(topic, { track: { meta: 1 } })
  await watcher.waitFor(() => presentAs(watcher).includes(bob))
  const began = performance.now()
  await victim.kill()
  await watcher.waitFor(() => leavesOf(watcher, bob) > 0, 30_000)
  // And until whoever looks for nodes that are gone has looked.
  expectWithin(performance.now() - began, leaseMs + graceMs + 5000)
  await sleep(2000)
  expect([leavesOf(watcher, bob), presentAs(watcher)]).toEqual([1, []])
}, 60_000)

test('[P4] [P8] Redis comes back empty: presence is there again, and a history that was lost is told', async () => {
  const [ann, bob] = [person(), person()]
  const topic = await nodes.roomOf([ann, bob], true)
  const inA = await (await nodes.open(nodes.a, ann)).join(topic, { presence: true, track: { meta: 1 } })
  const inB = await (await nodes.open(nodes.b, bob)).join(topic, { presence: true, track: { meta: 2 } })
  await inA.send('said', 'before')
  await got(inB, 1)
  await nodes.redis.kill()
  await nodes.redis.start('empty')
  const said = async (payload: string): Promise<void> => {
    for (;;) {
      try {
        await inA.send('said', payload, { idempotencyKey: payload })
        return
      } catch (error) {
        expect(error).toMatchObject({ code: 'UNAVAILABLE' })
        await sleep(200)
      }
    }
  }
  await said('after')
  await inB.waitFor(() => inB.payloads.at(-1) === 'after', 20_000)
  expect(inB.told.some(each => each.kind === 'resync' && each.code === 'HISTORY_LOST')).toBe(true)
  expect(inB.payloads).toEqual(['before', 'after'])
  await expect
    .poll(
      async () => {
        const answer = await fetch(`${nodes.a.url}/v1/channels/${encodeURIComponent(topic)}/presence`, {
          headers: { authorization: `Bearer ${await tokenFor(ann)}` },
        })
        return ((await answer.json()) as { count: number }).count
      },
      { timeout: 20_000 },
    )
    .toBe(2)
}, 60_000)

test('what a trigger broadcasts of a row comes behind it to both nodes, with the old and the new', async () => {
  const ann = person()
  const topic = await nodes.roomOf([ann])
  const room = Number(topic.slice(5))
  const { database } = nodes
  await database.query(`
    CREATE OR REPLACE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      PERFORM realtime.broadcast_changes('room:' || coalesce(NEW.room_id, OLD.room_id), TG_OP, TG_OP, TG_TABLE_NAME, TG_TABLE_SCHEMA, NEW, OLD);
      RETURN NULL;
    END $$;
    CREATE OR REPLACE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON messages FOR EACH ROW EXECUTE FUNCTION public.tell()`)
  const ears = [await (await nodes.open(nodes.a, ann)).join(topic), await (await nodes.open(nodes.b, ann)).join(topic)]
  await database.query(`INSERT INTO messages VALUES (${room}, ${room}, 'ann', 'one')`)
  await database.query(`UPDATE messages SET body = 'two' WHERE id = ${room}`)
  await database.query(`DELETE FROM messages WHERE id = ${room}; DROP TRIGGER tell ON messages`)
  for (const ear of ears) {
    await got(ear, 3)
    expect(ear.messages).toMatchObject([
      {
        event: 'INSERT',
        payload: { operation: 'INSERT', table: 'messages', record: { body: 'one' }, old_record: null },
      },
      { event: 'UPDATE', payload: { record: { body: 'two' }, old_record: { body: 'one' } } },
      { event: 'DELETE', payload: { record: null, old_record: { body: 'two' } } },
    ])
  }
})

test('[P4] a history survives the node that took it: the last first, in pages, and from where one was', async () => {
  const [ann, bob] = [person(), person()]
  const topic = await nodes.roomOf([ann, bob], true)
  const victim = await start(nodes.database.url, nodes.redis.url)
  const sender = await (await nodes.open(victim, ann)).join(topic)
  const ear = await (await nodes.open(victim, bob)).join(topic)
  for (let n = 1; n <= 30; n++) await sender.send('n', n)
  await got(ear, 30)
  const since = `${ear.messages[9]!.position}.${ear.joined!.tag}`
  await victim.kill()
  const back = await (await nodes.open(nodes.b, bob)).join(topic, { since })
  await got(back, 20)
  expect([back.joined!.resumed, back.payloads]).toEqual([true, Array.from({ length: 20 }, (_, n) => n + 11)])
  const late = await (await nodes.open(nodes.a, bob)).join(topic, { last: 3 })
  await got(late, 3)
  expect(late.payloads).toEqual([28, 29, 30])
  const headers = { authorization: `Bearer ${await tokenFor(bob)}` }
  const paged: unknown[] = []
  let next: string | null = ''
  for (let page = 0; page < 10 && next !== null; page++) {
    const url: string = `${nodes.a.url}/v1/channels/${encodeURIComponent(topic)}/history?limit=12${next === '' ? '' : `&before=${next}`}`
    const answer = (await (await fetch(url, { headers })).json()) as {
      messages: { payload: unknown }[]
      next: string | null
    }
    paged.unshift(...answer.messages.map(({ payload }) => payload))
    next = answer.next
  }
  expect(paged).toEqual(Array.from({ length: 30 }, (_, n) => n + 1))
}, 60_000)
