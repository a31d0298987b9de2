// Waiting for a transaction of one's own, over each wire that carries frames: what it did has been sent before it is said to have passed.
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { ClientFrame, ServerFrame } from '../../src/protocol/messages.ts'
import { comparePositions, parsePosition, parseQueryPositions } from '../../src/protocol/position.ts'
import { person, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { TestFrameStream } from './deliver/support/frame-stream.ts'
import { type TestSession, TestSocket } from './deliver/support/gateway.ts'

let database: TestDatabase
let node: TestNode
let token: string
const ada = person()

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await database.query(`CREATE TABLE public.untracked (id int)`)
  await database.query(`INSERT INTO members VALUES (1, '${ada}')`)
  node = await TestNode.start(database.url)
  token = await tokenFor(ada)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

const subscribe = (since?: string): ClientFrame => ({
  type: 'subscribe',
  id: 1,
  kind: 'live',
  table: 'messages',
  ...(since === undefined ? {} : { since }),
})

/** What a client holds, and what it was told in its order. */
interface Waiter {
  readonly frames: readonly ServerFrame[]
  /** Resolves when the transaction has passed, or was refused. */
  wait(ref: number, txid: string): Promise<Extract<ServerFrame, { type: 'waited' | 'error' }>>
}

function overSession(session: TestSession): Waiter {
  return {
    frames: session.frames,
    wait: (ref, txid) => {
      session.send({ type: 'wait', ref, txid })
      return Promise.race([
        session.frame('waited', frame => frame.ref === ref),
        session.frame('error', frame => frame.ref === ref),
      ])
    },
  }
}

async function polling(): Promise<Waiter> {
  const told: ServerFrame[] = []
  let since: string | undefined
  const ask = async (more: readonly ClientFrame[]): Promise<readonly ServerFrame[]> => {
    const response = await fetch(`${node.url}/v1/poll`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${token}` },
      body: JSON.stringify({ frames: [subscribe(since), ...more], wait: 20 }),
    })
    const { frames } = (await response.json()) as { frames: ServerFrame[] }
    const beat = frames.findLast(frame => frame.type === 'heartbeat')!
    since = beat.positions[1] ?? since
    told.push(...frames)
    return frames
  }
  await ask([])
  return {
    frames: told,
    wait: async (ref, txid) => {
      for (;;) {
        const frames = await ask([{ type: 'wait', ref, txid }])
        for (const frame of frames)
          if ((frame.type === 'waited' || frame.type === 'error') && frame.ref === ref) return frame
      }
    },
  }
}

async function opened(wire: string): Promise<Waiter & AsyncDisposable> {
  if (wire === 'polls') return { ...(await polling()), [Symbol.asyncDispose]: async () => {} }
  const place = { port: Number(new URL(node.url).port) }
  const session = wire === 'a stream' ? await TestFrameStream.open(place, token) : await TestSocket.open(place, token)
  session.send(subscribe())
  await session.frame('snapshot', frame => frame.done)
  return { ...overSession(session), [Symbol.asyncDispose]: () => session[Symbol.asyncDispose]() }
}

let lastId = 0

/** Commits a statement. @returns its transaction */
async function commit(sql: string): Promise<string> {
  const [row] = await database.query<{ xid: string }>(
    `BEGIN; ${sql}; CREATE TEMP TABLE mine ON COMMIT DROP AS SELECT 1; SELECT pg_current_xact_id()::text AS xid`,
  )
  await database.query('COMMIT')
  return row!.xid
}

test.each(['a WebSocket', 'a stream', 'polls'])(
  '[P1] over %s: what a transaction did has been sent, and where everything stands is past it',
  async wire => {
    await using client = await opened(wire)
    for (let ref = 1; ref <= 5; ref += 1) {
      lastId += 1
      const txid = await commit(`INSERT INTO messages SELECT ${lastId}, 1, 'ada', 'mine'`)
      const waited = await client.wait(ref, txid)
      expect(waited.type).toBe('waited')
      const before = client.frames.slice(0, client.frames.indexOf(waited))
      const keys = before.flatMap(frame => (frame.type === 'delta' ? frame.changes : []))
      expect(JSON.stringify(keys)).toContain(`"key":{"id":${lastId}}`)
      const beat = before.findLast(frame => frame.type === 'heartbeat')!
      const standing = parseQueryPositions(beat.positions[1]!)![0]!
      expect(
        comparePositions(standing, parsePosition((waited as { position: string }).position)!),
      ).toBeGreaterThanOrEqual(0)
    }
  },
)

test.each(['a WebSocket', 'a stream', 'polls'])(
  '[P8] over %s: one that nobody follows has passed too; one that was rolled back, or never was, is refused',
  async wire => {
    await using client = await opened(wire)
    expect(await client.wait(1, await commit('INSERT INTO untracked VALUES (1)'))).toMatchObject({ type: 'waited' })
    expect(await client.wait(2, await commit(`INSERT INTO rooms VALUES (${1000 + ++lastId}, 'x')`))).toMatchObject({
      type: 'waited',
    })
    const [row] = await database.query<{ xid: string }>(
      `BEGIN; INSERT INTO untracked VALUES (2); SELECT pg_current_xact_id()::text AS xid`,
    )
    await database.query('ROLLBACK')
    expect(await client.wait(3, row!.xid)).toMatchObject({ type: 'error', ref: 3, code: 'TXID_INVALID' })
    expect(await client.wait(4, '9223372036854775807')).toMatchObject({ type: 'error', code: 'TXID_INVALID' })
    expect(await client.wait(5, 'mine')).toMatchObject({ type: 'error', code: 'TXID_INVALID' })
  },
)

test.each(['a WebSocket', 'a stream', 'polls'])(
  'over %s: one that is open is waited for until it commits',
  async wire => {
    await using client = await opened(wire)
    lastId += 1
    const [row] = await database.query<{ xid: string }>(
      `BEGIN; INSERT INTO messages SELECT ${lastId}, 1, 'ada', 'late'; SELECT pg_current_xact_id()::text AS xid`,
    )
    let isOver = false
    const waiting = client.wait(1, row!.xid).then(frame => {
      isOver = true
      return frame
    })
    await new Promise(resolve => setTimeout(resolve, 300))
    expect(isOver).toBe(false)
    await database.query('COMMIT')
    expect((await waiting).type).toBe('waited')
    expect(JSON.stringify(client.frames)).toContain('"late"')
  },
)

test('a subscription whose effect of the commit is still being fetched stands before it: its heartbeat says so', async () => {
  await using session = await TestSocket.open({ port: Number(new URL(node.url).port) }, token)
  session.send(subscribe())
  await session.frame('snapshot', frame => frame.done)
  const room = 2000 + lastId
  await database.query(
    `INSERT INTO messages SELECT ${room} * 1000 + i, ${room}, 'ben', 'old' FROM generate_series(1, 500) i`,
  )
  // The granted rows are read from Postgres: they come when this is over, the answer before or after.
  const txid = await commit(`INSERT INTO members VALUES (${room}, '${ada}')`)
  const client = overSession(session)
  const waited = (await client.wait(1, txid)) as Extract<ServerFrame, { type: 'waited' }>
  const target = parsePosition(waited.position)!
  const granted = (frames: readonly ServerFrame[]): number =>
    frames.flatMap(frame => (frame.type === 'delta' ? frame.changes : [])).filter(({ op }) => op === 'insert').length
  const isPast = (frame: ServerFrame): boolean =>
    frame.type === 'heartbeat' &&
    frame.positions[1] !== undefined &&
    comparePositions(parseQueryPositions(frame.positions[1])![0]!, target) >= 0
  await expect.poll(() => granted(session.frames), { timeout: 20_000 }).toBe(500)
  // No heartbeat claims the commit before all that it granted was sent.
  for (const [place, frame] of session.frames.entries())
    if (isPast(frame)) expect(granted(session.frames.slice(0, place))).toBe(500)
  const again = await client.wait(2, txid)
  expect(session.frames.slice(0, session.frames.indexOf(again)).some(isPast)).toBe(true)
})
