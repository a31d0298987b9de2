// Members that take too little, and senders that send too much.
import { expect, test } from 'vitest'
import { bench, caller, enter, kept, said, turns } from './bench.ts'

test('[P4] [P7] a slow member of a channel with history reads on from there, without loss', async () => {
  const on = bench([
    { pattern: '*', history: { length: 1000, ageMs: 60_000 }, rate: { perSecond: 10_000, burst: 10_000 } },
  ])
  const ann = await enter(on, caller('ann'))
  const bob = await enter(on, caller('bob'))
  bob.outlet.room = 3
  for (let n = 1; n <= 400; n++) {
    await ann.member.send(said(n))
    if (n % 4 === 0) await turns()
  }
  expect(bob.outlet.got.length).toBeLessThan(10)
  bob.outlet.room = 250
  bob.member.resume()
  await expect.poll(() => bob.outlet.got.length).toBeGreaterThan(200)
  bob.outlet.room = Number.POSITIVE_INFINITY
  bob.member.resume()
  await expect.poll(() => bob.outlet.got.length).toBe(400)
  expect(bob.outlet.got).toEqual(Array.from({ length: 400 }, (_, n) => `said: ${n + 1}`))
})

test('[P4] [P7] a member that has no more room in the middle of a turn reads the rest of it', async () => {
  const on = bench([kept])
  const ann = await enter(on, caller('ann'))
  const bob = await enter(on, caller('bob'))
  bob.outlet.room = 2
  // Not all of them are for everybody: they are given one by one.
  await Promise.all([1, 2, 3, 4].map(n => ann.member.send(said(n, n === 1 ? { to: { user: 'bob' } } : {}))))
  await turns()
  expect(bob.outlet.got).toEqual(['said: 1', 'said: 2'])
  bob.outlet.room = 100
  bob.member.resume()
  await turns()
  expect(bob.outlet.got).toEqual([1, 2, 3, 4].map(n => `said: ${n}`))
})

const fast = { perSecond: 10_000, burst: 10_000 }

test('[P7] [P8] a slow member of a channel without history: buffered up to a bound, then closed', async () => {
  const on = bench([{ pattern: '*', bufferBytes: 4096, rate: fast }])
  const ann = await enter(on, caller('ann'))
  const bob = await enter(on, caller('bob'))
  bob.outlet.room = 1
  for (let n = 1; n <= 5; n++) await ann.member.send(said(n))
  await turns()
  bob.outlet.room = 100
  bob.member.resume()
  expect(bob.outlet.got).toEqual([1, 2, 3, 4, 5].map(n => `said: ${n}`))
  bob.outlet.room = 1
  for (let n = 6; n <= 50; n++) {
    await ann.member.send(said(n))
    await turns()
  }
  expect(bob.outlet.error).toMatchObject({ code: 'SLOW_CONSUMER' })
})

test('[P7] [P8] with drop-oldest a slow member is told how many it missed', async () => {
  const on = bench([{ pattern: '*', bufferBytes: 2048, backpressure: 'drop-oldest', rate: fast }])
  const ann = await enter(on, caller('ann'))
  const bob = await enter(on, caller('bob'))
  bob.outlet.room = 1
  for (let n = 1; n <= 101; n++) {
    await ann.member.send(said(n))
    await turns()
  }
  bob.outlet.room = 1000
  bob.member.resume()
  const [first, gap, ...rest] = bob.outlet.got
  expect(first).toBe('said: 1')
  expect(gap).toBe(`gap ${100 - rest.length}`)
  expect(rest.at(-1)).toBe('said: 101')
})

test('[P7] with latest a slow member gets the newest of each event', async () => {
  const on = bench([{ pattern: '*', backpressure: 'latest', rate: fast }])
  const ann = await enter(on, caller('ann'))
  const bob = await enter(on, caller('bob'))
  bob.outlet.room = 1
  await ann.member.send(said(0))
  await turns()
  for (let n = 1; n <= 10; n++) {
    await ann.member.send(said(n, { event: 'cursor' }))
    await ann.member.send(said(n, { event: 'typing' }))
  }
  await turns()
  bob.outlet.room = 100
  bob.member.resume()
  expect(bob.outlet.got).toEqual(['said: 0', 'gap 18', 'cursor: 10', 'typing: 10'])
})

test('[P7] whoever sends too fast is slowed first, then refused, then out; not for good', async () => {
  const on = bench([{ pattern: '*', rate: { perSecond: 100, burst: 5 } }])
  const ann = await enter(on, caller('ann'))
  const sends = Array.from({ length: 10 }, (_, n) => ann.member.send(said(n)))
  const began = performance.now()
  await Promise.all(sends)
  expect(performance.now() - began).toBeGreaterThan(30)
  const flood = await Promise.allSettled(Array.from({ length: 400 }, (_, n) => ann.member.send(said(n))))
  const refused = flood.filter(each => each.status === 'rejected')
  expect(refused.length).toBeGreaterThan(100)
  expect((refused[0] as PromiseRejectedResult).reason).toMatchObject({
    code: 'RATE_LIMITED',
    retryAfterMs: expect.any(Number),
  })
}, 20_000)
