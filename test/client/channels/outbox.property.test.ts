// What waits to be said in a channel, against a model of the server: whatever happens on the way, every send settles once, what is
// accepted keeps its order, and no more waits than may.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Outbox, type Sent } from '../../../src/client/channels/outbox.ts'
import type { Ask } from '../../../src/client/feed.ts'
import { TidegateError } from '../../../src/protocol/tidegate-error.ts'

type Step =
  | { readonly do: 'send'; readonly bytes: number; readonly refuseOffline: boolean }
  | { readonly do: 'cancel'; readonly which: number }
  | { readonly do: 'connect' }
  | { readonly do: 'lose' }
  /** The server takes the next that was asked; it is answered, or the answer is still on its way. */
  | { readonly do: 'take'; readonly refuses: boolean }
  | { readonly do: 'answer' }
  | { readonly do: 'wait'; readonly ms: number }

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        do: fc.constant('send' as const),
        bytes: fc.integer({ min: 1, max: 30 }),
        refuseOffline: fc.boolean(),
      }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('cancel' as const), which: fc.nat(20) }) },
    { weight: 3, arbitrary: fc.constant({ do: 'connect' as const }) },
    { weight: 3, arbitrary: fc.constant({ do: 'lose' as const }) },
    {
      weight: 6,
      arbitrary: fc.record({
        do: fc.constant('take' as const),
        refuses: fc.integer({ min: 0, max: 9 }).map(n => n === 0),
      }),
    },
    { weight: 6, arbitrary: fc.constant({ do: 'answer' as const }) },
    {
      weight: 2,
      arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.constantFrom(1000, 150_000, 310_000) }),
    },
  ),
  { maxLength: 120, size: 'max' },
)

const limits = fc.record({
  max: fc.integer({ min: 1, max: 12 }),
  maxBytes: fc.integer({ min: 20, max: 200 }),
  whenFull: fc.constantFrom('refuse' as const, 'drop-oldest' as const),
})

type Answer = Parameters<Outbox['answered']>[0]
type SendAsk = Extract<Ask, { type: 'send' }>

interface Settled {
  readonly number: number
  readonly sent?: Sent
  readonly code?: string
}

async function run(given: {
  limits: { max: number; maxBytes: number; whenFull: 'refuse' | 'drop-oldest' }
  steps: Step[]
}) {
  const outbox = new Outbox(given.limits)
  const keptMs = 300_000
  const settled: Settled[] = []
  const cancels: ((error: TidegateError) => void)[] = []
  // The server: what it was asked on this connection and has not looked at, what it said, what it knows by key, until when.
  let asked: SendAsk[] = []
  let answers: Answer[] = []
  const known = new Map<string, { number: number; until: number }>()
  const accepted: number[] = []
  const refusedByServer = new Set<number>()
  let isJoined = false
  let now = 0
  let ref = 0
  let size = 0
  let cancelled = 0
  const flush = (): void =>
    outbox.flush(
      now,
      keptMs,
      () => ++ref,
      ask => {
        if (isJoined) asked.push(ask as SendAsk)
        return isJoined
      },
    )
  const take = (refuses: boolean): void => {
    const ask = asked.shift()
    if (ask === undefined) return
    const number = ask.payload as number
    const before = known.get(ask.idempotencyKey!)
    const base = { id: 1, ref: ask.ref! }
    if (before !== undefined && before.until > now) {
      answers.push({ type: 'sent', ...base, message: String(number), position: 'p', duplicate: true })
    } else if (refuses) {
      refusedByServer.add(number)
      answers.push({ type: 'error', ...base, code: 'RATE_LIMITED', message: 'too fast', retry: true, retryAfterMs: 7 })
    } else {
      known.set(ask.idempotencyKey!, { number, until: now + keptMs })
      accepted.push(number)
      answers.push({ type: 'sent', ...base, message: String(number), position: 'p' })
    }
  }
  for (const step of given.steps) {
    const before = outbox.size
    switch (step.do) {
      case 'send': {
        const number = size++
        const { bytes, refuseOffline } = step
        const { sent, cancel } = outbox.add(
          { event: 'e', payload: number, idempotencyKey: `key ${number}` },
          { bytes, isJoined, refuseOffline: refuseOffline && !isJoined },
        )
        cancels.push(cancel)
        sent.then(
          value => settled.push({ number, sent: value }),
          (error: TidegateError) => settled.push({ number, code: error.code }),
        )
        flush()
        break
      }
      case 'cancel':
        cancels[step.which % (size + 1)]?.(new TidegateError('SEND_TIMEOUT', 'late'))
        flush()
        break
      case 'connect':
        if (isJoined) break
        isJoined = true
        flush()
        break
      case 'lose':
        isJoined = false
        asked = []
        answers = []
        outbox.interrupt()
        outbox.refuseOffline()
        break
      case 'take':
        take(step.refuses)
        break
      case 'answer': {
        const answer = answers.shift()
        if (answer === undefined) break
        outbox.answered(answer)
        flush()
        break
      }
      case 'wait':
        // Nothing is under way for so long: a link that carries nothing is lost.
        while (asked.length > 0) take(false)
        now += step.ms
        break
    }
    if (!isJoined) expect(outbox.size).toBeLessThanOrEqual(Math.max(before, given.limits.max))
    if (step.do === 'cancel') cancelled += 1
    expect(asked.length + answers.length).toBeLessThanOrEqual(8 + cancelled)
  }
  const waiting = outbox.size
  await Promise.resolve()
  expect(settled.length + waiting).toBe(size)
  // In the end the link stands, and the server takes all.
  isJoined = true
  asked = []
  answers = []
  outbox.interrupt()
  flush()
  while (asked.length + answers.length > 0) {
    take(false)
    const answer = answers.shift()
    if (answer !== undefined) outbox.answered(answer)
    flush()
  }
  await Promise.resolve()
  await new Promise(resolve => setImmediate(resolve))
  return { outbox, settled, accepted, refusedByServer, known, size }
}

test('every send settles exactly once, and truly: what is said to be sent was, what was refused was not', async () => {
  await fc.assert(
    fc.asyncProperty(fc.record({ limits, steps }), async given => {
      const { outbox, settled, accepted, refusedByServer, size } = await run(given)
      expect(outbox.size).toBe(0)
      expect(settled.map(({ number }) => number).sort((a, b) => a - b)).toEqual(
        Array.from({ length: size }, (_, n) => n),
      )
      for (const { number, sent, code } of settled) {
        const times = accepted.filter(each => each === number).length
        if (sent !== undefined) expect([number, times, sent.id]).toEqual([number, 1, String(number)])
        else if (code === 'RATE_LIMITED') expect([times, refusedByServer.has(number)]).toEqual([0, true])
        else if (code === 'SEND_QUEUE_FULL' || code === 'CLIENT_OFFLINE') expect(times).toBe(0)
        else expect(['SEND_TIMEOUT', 'SEND_UNCERTAIN']).toContain(code)
        // Never twice, whatever it was told.
        expect(times).toBeLessThanOrEqual(1)
      }
    }),
    { numRuns: 1000 },
  )
})

test('what the server accepts is in the order of sending, where it refuses nothing', async () => {
  await fc.assert(
    fc.asyncProperty(fc.record({ limits, steps }), async given => {
      const accepting = given.steps.map(step => (step.do === 'take' ? { ...step, refuses: false } : step))
      const { accepted } = await run({ ...given, steps: accepting })
      expect(accepted).toEqual([...accepted].sort((a, b) => a - b))
    }),
    { numRuns: 1000 },
  )
})

const add = (outbox: Outbox, bytes: number, isJoined = false): Promise<Sent> => {
  const { sent } = outbox.add({ event: 'e', idempotencyKey: 'k' }, { bytes, isJoined, refuseOffline: false })
  sent.catch(() => {})
  return sent
}

test('[P7] offline no more waits than may, by count and by bytes; which of them goes is as chosen', async () => {
  const refusing = new Outbox({ max: 3, maxBytes: 100 })
  const sent = [add(refusing, 40), add(refusing, 40), add(refusing, 40)]
  await expect(sent[2]).rejects.toMatchObject({ code: 'SEND_QUEUE_FULL' })
  void add(refusing, 1)
  await expect(add(refusing, 1)).rejects.toMatchObject({ code: 'SEND_QUEUE_FULL' })
  expect(refusing.size).toBe(3)

  const dropping = new Outbox({ max: 3, maxBytes: 100, whenFull: 'drop-oldest' })
  const dropped = [add(dropping, 40), add(dropping, 40), add(dropping, 40)]
  await expect(dropped[0]).rejects.toMatchObject({ code: 'SEND_QUEUE_FULL' })
  await expect(add(dropping, 101)).rejects.toMatchObject({ code: 'SEND_QUEUE_FULL' })
  expect(dropping.size).toBe(2)
})

test('[P7] while the client is in the channel a thousand wait, and what was asked is not dropped', async () => {
  const outbox = new Outbox({ max: 2, whenFull: 'drop-oldest' })
  let ref = 0
  const sent = Array.from({ length: 1000 }, () => add(outbox, 1, true))
  outbox.flush(
    0,
    300_000,
    () => ++ref,
    () => true,
  )
  expect(ref).toBe(8)
  const more = add(outbox, 1, true)
  await expect(sent[8]).rejects.toMatchObject({ code: 'SEND_QUEUE_FULL' })
  expect(outbox.size).toBe(1000)
  outbox.end(new TidegateError('CLIENT_CLOSED', 'closed'))
  await expect(sent[0]).rejects.toMatchObject({ code: 'CLIENT_CLOSED' })
  await expect(more).rejects.toMatchObject({ code: 'CLIENT_CLOSED' })
})
