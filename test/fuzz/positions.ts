// Positions, own and others', as they were given and changed a little: what is accepted goes on from the very state that
// stood there, shows nothing that its reader may not see, and leaves nothing out.
import type { JsonRow } from '../../src/protocol/messages.ts'
import type { Random } from '../checker/random.ts'
import { asSet, LiveSse, StrictRows } from '../support/node.ts'
import { mutateText, nasty } from './mutate.ts'
import type { Actor, Run } from './run.ts'
import { FuzzSocket } from './socket.ts'
import { comesTrue, connect, rooms, rowsAs, secret } from './world.ts'

/** What the reader had at a position it was told. */
interface Moment {
  readonly position: string
  readonly lsn: bigint
  readonly rows: readonly JsonRow[]
}

interface Attempt {
  readonly since: string
  /** What was done to a position that was given, for the message of a failure. */
  readonly how: string
  /** What must stand there if it is accepted; null when nobody could know. */
  readonly rows: readonly JsonRow[] | null
}

const maxMoments = 200

export const positions: Actor = async (run, random) => {
  const client = await connect(run.database)
  const path = '/v1/live/notes'
  let follower = await (await LiveSse.open(run, path, run.token)).exact()
  using foreign = await (await LiveSse.open(run, path, run.foreignToken)).exact()
  const moments: Moment[] = []
  try {
    while (!run.isOver()) {
      await write(client, random)
      const rows = await rowsAs(client, run.ada, 'SELECT * FROM notes')
      const { stream } = follower
      const stands = (): boolean => String(asSet(follower.rows.list())) === String(asSet(rows))
      if (!(await comesTrue(() => follower.failure !== null || stands())) || follower.failure !== null) {
        run.oracle.fail(
          `the follower of notes lost its way: ${String(follower.failure)}`,
          follower.rows.history.slice(-5),
        )
        follower.stream.close()
        follower = await (await LiveSse.open(run, path, run.token)).exact()
        continue
      }
      // Of the commit itself: what stood just before a heartbeat's position may be its commit's work already.
      const position = stream.events.findLast(({ event }) => event === 'delta' || event === 'snapshot')!.id
      const lsn = BigInt(`0x${/-([0-9a-f]+)/.exec(position)![1]}`)
      if (moments.at(-1)?.position !== position) moments.push({ position, lsn, rows })
      if (moments.length > maxMoments) moments.splice(0, maxMoments / 2)
      for (let times = 0; times < 5; times++) {
        run.oracle.count('positions')
        const attempt = attemptOf(random, moments, foreign.stream.lastEventId)
        if (random.once(3)) await bySocket(run, attempt, rows)
        else await byPoll(run, attempt, rows)
      }
    }
  } finally {
    follower.stream.close()
    await client.end()
  }
}

async function write(client: Awaited<ReturnType<typeof connect>>, random: Random): Promise<void> {
  const id = 1 + random.below(12)
  const room = random.pick([...rooms.own, rooms.foreign])
  const body = room === rooms.foreign ? secret : `text ${random.below(1000)}`
  // A row in a foreign room always says so, wherever it came from.
  if (random.once(4)) await client.query('DELETE FROM notes WHERE id = $1', [id])
  else
    await client.query(`INSERT INTO notes VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET room_id = $2, body = $3`, [
      id,
      room,
      body,
    ])
}

function attemptOf(random: Random, moments: readonly Moment[], foreign: string): Attempt {
  const at = random.below(moments.length)
  const { position, lsn, rows } = moments[at]!
  const next = moments[at + 1]?.lsn
  const [, epoch, , tag] = /^([0-9a-f]{8})-([0-9a-f]+)\.(.+)$/.exec(position)!
  const told = (text: bigint, extra = ''): string => `${epoch}-${text.toString(16)}${extra}.${tag}`
  switch (random.below(10)) {
    case 0:
      return { how: 'a foreign one', since: foreign, rows: null }
    case 1:
      return { how: `one byte before ${position}`, since: told(lsn - 1n), rows: moments[at - 1]?.rows ?? null }
    case 2:
      // Between two commits stands what the first has left.
      return next === undefined
        ? { how: 'the last', since: position, rows }
        : { how: `between ${position} and the next`, since: told(lsn + BigInt(random.below(Number(next - lsn)))), rows }
    case 3:
      return { how: 'inside a commit', since: told(lsn, `-${random.below(4).toString(16)}`), rows: null }
    case 4:
      return {
        how: 'elsewhere',
        since: told(random.pick([0n, 1n, 2n ** 63n, 2n ** 64n - 1n, lsn + 2n ** 40n, lsn / 2n])),
        rows: null,
      }
    case 5:
      return {
        how: 'another epoch',
        since: position.replace(epoch!, random.pick(['00000000', 'ffffffff', epoch!.toUpperCase()])),
        rows: null,
      }
    case 6:
      return {
        how: 'another tag',
        since: `${position.slice(0, -2)}${random.pick(['xx', '', '__', 'x'.repeat(40)])}`,
        rows: null,
      }
    case 7:
      return { how: 'broken', since: mutateText(random, position), rows: null }
    case 8:
      return {
        how: 'no position',
        since: random.pick([...nasty, `${position}~${position}`, '-', `-${position}`]),
        rows: null,
      }
    default:
      return { how: 'as it was given', since: position, rows }
  }
}

const before = (rows: readonly JsonRow[]): StrictRows => {
  const held = new StrictRows()
  held.take({ event: 'snapshot', data: { rows, done: true } })
  return held
}

async function byPoll(run: Run, attempt: Attempt, now: readonly JsonRow[]): Promise<void> {
  const { since } = attempt
  if (!since.isWellFormed()) return
  const events: { event: string; data: unknown }[] = []
  // A poll may answer with a part of what is new, and where it ends: asked again until nothing is left.
  for (let after = since, polls = 0; ; polls++) {
    const response = await fetch(`${run.url}/v1/live/notes?after=${encodeURIComponent(after)}&wait=0`, {
      headers: { authorization: `Bearer ${run.token}`, accept: 'application/json' },
    })
    if (response.status === 304) break
    const text = await response.text()
    if (text.includes(secret)) run.oracle.fail('a poll shows what its reader may not see', since)
    if (response.status !== 200) {
      run.oracle.refusal(JSON.parse(text), response.status, since)
      if (polls > 0) run.oracle.fail(`a position that a poll has given is refused: ${text}`, after)
      return
    }
    const body = JSON.parse(text) as { events: typeof events; position: string }
    events.push(...body.events)
    if (body.position === after || polls > 100) {
      run.oracle.fail(`polls come to no end at ${after}`, events)
      return
    }
    after = body.position
  }
  compare(run, attempt, now, events)
}

async function bySocket(run: Run, attempt: Attempt, now: readonly JsonRow[]): Promise<void> {
  const { since, rows } = attempt
  const socket = await FuzzSocket.open(run, run.token)
  const events: { event: string; data: unknown }[] = []
  let isRefused = false
  let isAnswered = false
  socket.onFrame = frame => {
    if (frame.type === 'error') isRefused = true
    if (frame.type === 'subscribed') isAnswered = true
    if (['snapshot', 'delta', 'resync'].includes(frame.type)) events.push({ event: frame.type, data: frame })
  }
  socket.send(JSON.stringify({ type: 'subscribe', id: 1, kind: 'live', table: 'notes', since }))
  const stands = (): boolean => {
    try {
      const held = before(rows ?? [])
      for (const event of events) held.take(event)
      return String(asSet(held.list())) === String(asSet(now))
    } catch {
      return true
    }
  }
  const isOver = (): boolean => isRefused || socket.isClosed || (isAnswered && (rows === null || stands()))
  await comesTrue(isOver, 5000)
  socket.terminate()
  if (!isRefused) compare(run, attempt, now, events)
}

function compare(
  run: Run,
  { since, rows, how }: Attempt,
  now: readonly JsonRow[],
  events: readonly { event: string; data: unknown }[],
): void {
  const isFresh = events.some(({ event }) => event === 'resync')
  // Nobody knows what stood there: what is shown is looked at all the same, by `secret`.
  if (rows === null && !isFresh) return
  run.oracle.count('positions compared')
  const held = before(rows ?? [])
  try {
    for (const event of events) held.take(event)
  } catch (error) {
    run.oracle.fail(`after ${since}, ${how}, with ${asSet(rows ?? [])}: ${String(error)}`, events)
    return
  }
  // Over a socket a fresh snapshot may not have come whole before it was let go.
  if (isFresh && !held.exact) return
  if (String(asSet(held.list())) !== String(asSet(now)))
    run.oracle.fail(`after ${since}, ${how}, stand ${asSet(held.list())}, and Postgres has ${asSet(now)}`, events)
}
