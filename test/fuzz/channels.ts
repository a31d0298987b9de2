// What is asked of channels, over frames, requests and SQL: valid, nearly valid, and far from it. What was taken arrives as it was sent.
import type { Random } from '../checker/random.ts'
import { mutateBytes, mutateJson, mutateText, nasty } from './mutate.ts'
import type { Actor, Run } from './run.ts'
import { FuzzSocket } from './socket.ts'
import { comesTrue, connect, secret } from './world.ts'

/** Of a node under this fuzzer. */
export const channelRules = [
  { pattern: 'open:slow', public: true, rate: { perSecond: 50, burst: 2 } },
  { pattern: 'open*', public: true, history: { length: 20, age: '1m' }, maxPayloadBytes: 2000 },
  { pattern: 'room:2', history: { length: 5, age: '2s' }, backpressure: 'latest' },
  { pattern: 'room:1', presence: { grace: '300ms', diff: '20ms', boundToSubject: false }, maxPayloadBytes: 2000 },
  { pattern: '*', presence: { grace: '300ms', diff: '20ms' }, rate: { perSecond: 500, burst: 500 } },
]

const own = ['room:1', 'room:2', 'open:1', 'open:slow']
const strange = [
  ...nasty,
  '',
  ' ',
  'room:3',
  'room:*',
  'open:{a}',
  'open:{',
  'open:}{',
  'open:a/b?c=d&e#f',
  'open:%2F%00',
  'open:../..',
  'open:\u2028',
  'open:é\u0301',
  `open:${'😀'.repeat(250)}`,
  '😀'.repeat(255),
  '😀'.repeat(256),
  'x'.repeat(255),
  'x'.repeat(256),
  'open:\ud83d',
]

export const topicOf = (random: Random): string =>
  random.once(2) ? random.pick(own) : random.once(4) ? mutateText(random, random.pick(own)) : random.pick(strange)

/** JSON texts, some of which no number or stack holds. */
export const rawPayloads: readonly string[] = [
  'null',
  '{"on":true}',
  '-0',
  '12345678901234567890',
  '[1e-400,-1e308,0.1]',
  '{"__proto__":{"x":1},"constructor":{"prototype":1},"toString":null}',
  '{"a":1,"a":2}',
  '"\\ud800\\u0000\\u2028"',
  '"\\r\\nid: 1\\n\\ndata: x"',
  `"${'é'.repeat(1500)}"`,
  `${'['.repeat(60)}${']'.repeat(60)}`,
  '1e400',
  `${'['.repeat(8000)}${']'.repeat(8000)}`,
  `"${'x'.repeat(60_000)}"`,
]

const bases = ['', 'AA==', 'AAEC', 'AAE', '====', 'A A=', '-_-_', 'é', 'x'.repeat(50_000)]
const raw = '@raw'

const targetOf = (random: Random, run: Run): unknown =>
  random.pick<unknown>([
    { user: run.ada },
    { connection: 'nobody' },
    { user: '' },
    { user: random.pick(nasty) },
    { user: 'a', connection: 'b' },
    { user: null },
    {},
    [],
    'all',
    { __proto__: 1 },
  ])

export function sendOf(random: Random, run: Run): Record<string, unknown> {
  const send: Record<string, unknown> = { event: random.once(3) ? random.pick(strange) : 'said' }
  if (!random.once(8)) send.payload = raw
  if (random.once(8)) send.binary = random.pick(bases)
  if (random.once(6)) send.to = targetOf(random, run)
  if (random.once(6)) send.idempotencyKey = random.pick(['k', ...strange])
  if (random.once(10)) send.after = random.pick(['1', '3', '0', '-1', '99999999999999999999', 'x', ''])
  return send
}

/** JSON of it, a little broken at times. */
export const jsonOf = (random: Random, value: Record<string, unknown>): string =>
  (random.once(5) ? mutateJson(random, value) : JSON.stringify(value)).replaceAll(`"${raw}"`, () =>
    random.pick(random.once(6) ? rawPayloads : rawPayloads.slice(0, -4)),
  )

function frameOf(random: Random, run: Run): Record<string, unknown> {
  const id = random.below(5)
  const ref = random.once(2) ? {} : { ref: random.below(100) }
  const track = { meta: raw, ...(random.once(3) ? { key: random.pick(['ada', ...strange]) } : {}) }
  switch (random.below(9)) {
    case 0:
      return { type: 'unsubscribe', id }
    case 1:
      return { type: 'track', id, ...ref, ...track }
    case 2:
      return { type: 'untrack', id, ...ref }
    case 3:
    case 4:
    case 5:
      return { type: 'send', id, ...ref, ...sendOf(random, run) }
    default: {
      const join: Record<string, unknown> = { type: 'join', id, topic: topicOf(random) }
      if (random.once(2)) join.private = !String(join.topic).startsWith('open')
      for (const name of ['self', 'presence']) if (random.once(2)) join[name] = true
      if (random.once(3)) join.track = track
      if (random.once(5)) join.last = random.pick([1, 10, 10_000, 10_001, 0, -1, 1.5])
      if (random.once(5)) join.since = mutateText(random, '1f2e3d4c-3.x7Kd_92mAAAA')
      return join
    }
  }
}

/** Sessions of members who do not behave. */
export const members: Actor = async (run, random) => {
  while (!run.isOver()) {
    const socket = await FuzzSocket.open(run, run.token)
    for (const [id, topic] of own.entries())
      socket.send(JSON.stringify({ type: 'join', id, topic, private: topic.startsWith('room') }))
    for (let times = 2 + random.below(10); times > 0 && !socket.isClosed; times--) {
      run.oracle.count('channel frames')
      const text = jsonOf(random, frameOf(random, run))
      if (random.once(25)) socket.send(mutateBytes(random, Buffer.from(text)), false)
      else socket.send(text)
      if (random.once(4)) await socket.settled()
    }
    await socket.settled()
    socket.terminate()
  }
}

/** The database speaks to any topic, also where nobody who asks here may hear it. What it says comes as Postgres has it: larger numbers
 *  and deeper lists than the oracle's schema takes are left out. */
export const database: Actor = async (run, random) => {
  const client = await connect(run.database)
  const send = async (payload: string, event: string, topic: string, isPrivate: boolean): Promise<void> => {
    run.oracle.count('channel statements')
    await client
      .query('SELECT realtime.send($1::jsonb, $2, $3, $4)', [payload, event, topic, isPrivate])
      .catch(() => {})
  }
  try {
    while (!run.isOver()) {
      await send(JSON.stringify(secret), secret, 'room:3', true)
      const payload = random.pick(rawPayloads.filter(text => text !== '1e400' && !text.includes('['.repeat(100))))
      await send(payload, random.pick(strange), topicOf(random), random.once(2))
      await new Promise(resolve => setTimeout(resolve, 5))
    }
  } finally {
    await client.end()
  }
}

interface Echo {
  readonly event: string
  readonly payload: unknown
}

const echoTopic = 'open:echo'

/** What was answered by `sent` comes back as it was sent, and so it is in the history. */
export const echoes: Actor = async (run, random) => {
  // A frame that is none ends the connection.
  while (!run.isOver()) {
    const socket = await FuzzSocket.open(run, run.token)
    await echo(run, random, socket)
    socket.terminate()
  }
}

async function echo(run: Run, random: Random, socket: FuzzSocket): Promise<void> {
  const told = new Map<string, Echo>()
  let sent: string | null = null
  let isRefused = false
  socket.onFrame = frame => {
    if (frame.type === 'message') told.set(String(frame.id), frame as unknown as Echo)
    if (frame.type === 'sent') sent = String(frame.message)
    if (frame.type === 'error') isRefused = true
  }
  socket.send(JSON.stringify({ type: 'join', id: 1, topic: echoTopic, private: false, self: true }))
  await socket.next(({ type }) => type === 'joined' || type === 'error')
  while (!run.isOver() && !socket.isClosed && !isRefused) {
    run.oracle.count('echoes')
    const event = random.once(2) ? random.pick(strange) : mutateText(random, 'said')
    const payload = random.pick(rawPayloads)
    sent = null
    socket.send(`{"type":"send","id":1,"ref":1,"event":${JSON.stringify(event)},"payload":${payload}}`)
    const isTold = (): boolean => isRefused || socket.isClosed || (sent !== null && told.has(sent))
    if (!(await comesTrue(isTold))) run.oracle.fail('what was sent does not come back', { event, payload })
    if (sent === null) continue
    const asSent = JSON.stringify([event, JSON.parse(payload)])
    const expect = (what: string, found: Echo | undefined): void => {
      if (JSON.stringify([found?.event, found?.payload]) !== asSent)
        run.oracle.fail(`${what} ${JSON.stringify(found)?.slice(0, 300)}`, { event, payload })
      else run.oracle.count('echoes compared')
    }
    expect('came as', told.get(sent))
    told.clear()
    if (!random.once(4)) continue
    const path = `/v1/channels/${encodeURIComponent(echoTopic)}/history?private=false&last=20`
    const page = await fetch(run.url + path, { headers: { authorization: `Bearer ${run.token}` } })
    const { messages } = (await page.json()) as { messages: ({ id: string } & Echo)[] }
    const kept = messages.find(({ id }) => id === sent)
    // Others may have said twenty things since.
    if (kept !== undefined) expect('kept as', kept)
  }
}
