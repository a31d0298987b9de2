import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { expect, test, vi } from 'vitest'
import type { Commit } from '../../../src/server/decode/change.ts'
import { MemoryRelay } from '../../../src/server/relay/memory-relay.ts'
import { parseSnapshot } from '../../../src/server/wal/visibility.ts'

/** A commit at `lsn * 100`, ending 10 later. */
function commitAt(
  lsn: number,
  options: { xid?: number; bytes?: number; spooled?: boolean; onRelease?: () => void } = {},
): Commit {
  return {
    xid: options.xid ?? lsn,
    commitLsn: BigInt(lsn * 100),
    endLsn: BigInt(lsn * 100 + 10),
    committedAtMicros: 0n,
    bytes: options.bytes ?? 1000,
    relations: new Set(),
    layouts: [],
    announced: [],
    changes: () => [],
    passing: () => [],
    changeCount: 0,
    spooled: options.spooled ?? false,
    messages: [],
    release: options.onRelease ?? (() => {}),
  }
}

function relayOf(options: { maxBytes?: number; maxAgeMs?: number; maxWalBytes?: number } = {}) {
  const clock = { now: 0 }
  const relay = new MemoryRelay({
    maxBytes: options.maxBytes ?? 1_000_000,
    maxAgeMs: options.maxAgeMs ?? 60_000,
    maxWalBytes: options.maxWalBytes ?? 1_000_000,
    now: () => clock.now,
  })
  relay.begin('e', 0n)
  return { relay, clock }
}

async function serveAll(relay: MemoryRelay): Promise<Commit[]> {
  for await (const { commits } of relay.follow(new AbortController().signal)) return [...commits]
  return []
}

test('[P4] a commit at or below the head came before and is dropped', async () => {
  const { relay } = relayOf()
  let released = 0
  relay.append(commitAt(1))
  relay.append(commitAt(2))
  relay.append(commitAt(1, { onRelease: () => (released += 1) }))
  relay.append(commitAt(3))
  expect((await serveAll(relay)).map(commit => commit.xid)).toEqual([1, 2, 3])
  expect(released).toBe(1)
})

test('[P4] what comes after a position is whole, and the position may be anywhere', () => {
  const { relay } = relayOf()
  for (let lsn = 1; lsn <= 5; lsn++) relay.append(commitAt(lsn))
  expect(relay.between(0n, 500n).map(commit => commit.xid)).toEqual([1, 2, 3, 4, 5])
  expect(relay.between(200n, 400n).map(commit => commit.xid)).toEqual([3, 4])
  expect(relay.between(250n, 450n).map(commit => commit.xid)).toEqual([3, 4])
  expect(relay.between(500n, 500n)).toEqual([])
  expect(relay.at(300n)?.xid).toBe(3)
  expect(relay.at(301n)).toBe(null)
})

test.each([
  ['bytes', { maxBytes: 3600 }, 0],
  ['age', { maxAgeMs: 1000 }, 1001],
  ['WAL distance', { maxWalBytes: 250 }, 0],
])('[P7] the window is bounded by %s', async (_, bounds, later) => {
  const { relay, clock } = relayOf(bounds)
  for (let lsn = 1; lsn <= 5; lsn++) {
    if (lsn === 3) clock.now = later
    relay.append(commitAt(lsn))
  }
  await serveAll(relay)
  relay.evict()
  expect(relay.between(0n, 500n).map(commit => commit.xid)).toEqual([3, 4, 5])
  expect(relay.covers(200n)).toBe(true)
  expect(relay.covers(199n)).toBe(false)
})

test('[P4] the slot is acknowledged only for what left the window and is visible, in commit order', async () => {
  const { relay } = relayOf({ maxBytes: 0 })
  for (let lsn = 1; lsn <= 6; lsn++) relay.append(commitAt(lsn))
  await serveAll(relay)
  relay.evict()
  expect(relay.acknowledgeable()).toBe(null)
  // 3 is in progress still for SQL, although 4 and 5 are visible: the prefix ends at 2, and is acknowledged one behind.
  relay.sampled(parseSnapshot('3:6:3'))
  relay.evict()
  expect(relay.acknowledgeable()).toBe(110n)
  relay.sampled(parseSnapshot('7:7:'))
  relay.evict()
  expect(relay.acknowledgeable()).toBe(510n)
})

test('[P4] whatever becomes visible in whatever order, what is acknowledged is the visible prefix, one commit behind', async () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant('append' as const) }),
    fc.record({ do: fc.constant('see' as const), which: fc.nat(5) }),
    fc.record({ do: fc.constant('sample' as const) }),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async steps => {
      const { relay } = relayOf({ maxBytes: 0 })
      const invisible: number[] = []
      let newest = 0
      for (const each of steps) {
        if (each.do === 'append') {
          newest += 1
          invisible.push(newest)
          relay.append(commitAt(newest))
          await serveAll(relay)
        } else if (each.do === 'see') invisible.splice(each.which % Math.max(1, invisible.length), 1)
        else {
          relay.sampled(parseSnapshot(`${invisible[0] ?? newest + 1}:${newest + 1}:${invisible.join(',')}`))
          relay.evict()
          const prefix = (invisible[0] ?? newest + 1) - 1
          expect(relay.acknowledgeable()).toBe(prefix < 2 ? null : BigInt((prefix - 1) * 100 + 10))
        }
      }
    }),
  )
})

test('[P7] behind a commit that stays invisible for hours, those that left the window are kept no longer', async () => {
  setFlagsFromString('--expose_gc')
  const collectGarbage = runInNewContext('gc') as () => void
  const { relay } = relayOf({ maxBytes: 0 })
  const references: WeakRef<Commit>[] = []
  const append = (commit: Commit): void => {
    references.push(new WeakRef(commit))
    relay.append(commit)
  }
  for (let lsn = 1; lsn <= 50; lsn++) append(commitAt(lsn))
  await serveAll(relay)
  relay.sampled(parseSnapshot('2:51:2'))
  relay.evict()
  expect(relay.acknowledgeable()).toBe(null)
  await vi.waitFor(() => {
    collectGarbage()
    expect(references.flatMap(each => each.deref()?.xid ?? [])).toEqual([2])
  })
})

test('[P1] a commit stays in the ring until a snapshot sampled later sees it, whatever the window does', async () => {
  const { relay } = relayOf({ maxBytes: 0 })
  relay.append(commitAt(1))
  relay.append(commitAt(2))
  await serveAll(relay)
  relay.evict()
  const pin = relay.pin()
  expect(relay.unseen(parseSnapshot('2:3:2'), 1000n).map(commit => commit.xid)).toEqual([2])
  expect(relay.unseen(parseSnapshot('1:3:1,2'), 150n).map(commit => commit.xid)).toEqual([1])
  pin.release()
  relay.sampled(parseSnapshot('3:3:'))
  expect(relay.unseen(parseSnapshot('1:3:1,2'), 1000n)).toEqual([])
})

test('[P1] an idle writer that holds xmin back for hours does not keep visible commits in the ring', async () => {
  const { relay } = relayOf({ maxBytes: 0 })
  relay.append(commitAt(848))
  await serveAll(relay)
  relay.sampled(parseSnapshot('847:849:847'))
  relay.evict()
  expect(relay.ringBytes()).toBe(0)
})

test('[P1] a commit that became visible later stays for an older snapshot that is still being spliced', async () => {
  const { relay } = relayOf({ maxBytes: 0 })
  const releases: number[] = []
  const pin = relay.pin()
  const old = parseSnapshot('1:1:')
  relay.append(commitAt(1, { onRelease: () => releases.push(1) }))
  await serveAll(relay)
  relay.sampled(parseSnapshot('2:2:'))
  relay.evict()
  expect(relay.unseen(old, 1000n).map(commit => commit.xid)).toEqual([1])
  expect(releases).toEqual([])
  pin.release()
  expect(relay.unseen(old, 1000n)).toEqual([])
  expect(releases).toEqual([1])
})

test('[P4] after any history, window and ring together hold every commit that a pinned snapshot does not see', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom('commit', 'sample', 'evict', 'pin', 'release'), { maxLength: 60 }),
      async steps => {
        const { relay } = relayOf({ maxBytes: 2000 })
        let next = 1
        const pins: { pin: ReturnType<MemoryRelay['pin']>; xmax: number }[] = []
        for (const step of steps) {
          if (step === 'commit') {
            relay.append(commitAt(next))
            next += 1
            await serveAll(relay)
          } else if (step === 'sample') relay.sampled(parseSnapshot(`${next}:${next}:`))
          else if (step === 'evict') relay.evict()
          else if (step === 'pin') pins.push({ pin: relay.pin(), xmax: next })
          else pins.shift()?.pin.release()
          for (const { xmax } of pins) {
            const unseen = relay.unseen(parseSnapshot(`${xmax}:${xmax}:`), 1_000_000n).map(commit => commit.xid)
            expect(unseen).toEqual(Array.from({ length: next - xmax }, (_, i) => xmax + i))
          }
        }
      },
    ),
  )
})

test('[P7] the reader waits while what was not followed yet is past its bound', async () => {
  const { relay } = relayOf()
  relay.append(commitAt(1, { bytes: 20 * 1024 * 1024 }))
  let passed = false
  const room = relay.room().then(() => {
    passed = true
  })
  await Promise.resolve()
  expect(passed).toBe(false)
  await serveAll(relay)
  await room
  expect(passed).toBe(true)
})

test('[P7] a commit that is being served does not leave, however far the window has moved on', async () => {
  const { relay, clock } = relayOf({ maxAgeMs: 0, maxWalBytes: 10 })
  const released: number[] = []
  for (const lsn of [1, 2]) relay.append(commitAt(lsn, { spooled: true, onRelease: () => released.push(lsn) }))
  const batches = relay.follow(new AbortController().signal)[Symbol.asyncIterator]()
  await batches.next()
  clock.now = 1000
  relay.append(commitAt(3))
  relay.sampled(parseSnapshot('10:10:'))
  relay.evict()
  expect(released).toEqual([])
  // The next batch was asked for: what was in the one before it has been served.
  await batches.next()
  relay.evict()
  relay.sampled(parseSnapshot('10:10:'))
  expect(released).toEqual([1, 2])
})

test('[P4] where commits from before the window may be invisible, no snapshot is begun until they are settled', () => {
  const { relay } = relayOf()
  relay.begin('f', 300n, false)
  const busy = expect.objectContaining({ code: 'BUSY', retryAfterMs: 1000 })
  expect(() => relay.pin()).toThrow(busy)
  relay.append(commitAt(4))
  relay.settled(299n)
  expect(() => relay.pin()).toThrow(busy)
  relay.settled(300n)
  relay.pin().release()
  // It is settled for as long as the window lasts.
  relay.settled(0n)
  relay.pin().release()
  expect(relay.pins).toBe(0)
})

test('[P4] each beginning of the window is another life of it, and what is followed names the one that it is of', async () => {
  const { relay } = relayOf()
  const first = relay.life
  const batches = relay.follow(new AbortController().signal)[Symbol.asyncIterator]()
  relay.append(commitAt(1))
  expect((await batches.next()).value).toMatchObject({ life: first, passedLsn: 110n })
  relay.begin('e', 500n)
  expect(relay.life).toBe(first + 1)
  relay.append(commitAt(6))
  expect((await batches.next()).value).toMatchObject({ life: first + 1, passedLsn: 610n })
})
