import { expect, test } from 'vitest'
import { Head } from '../../../src/server/relay/head.ts'
import { MemoryRelay } from '../../../src/server/relay/memory-relay.ts'
import { untilEpochKnown } from '../../../src/server/subscribe/epoch-ahead.ts'

/** A node that is in epoch `old`. */
function nodeOf(resumeWaitMs = 30_000) {
  const relay = new MemoryRelay({ maxBytes: 1000, maxAgeMs: 1000, maxWalBytes: 1000, now: () => 0 })
  const head = new Head()
  const enter = (epoch: string): void => {
    relay.begin(epoch, 0n)
    head.begin(0n)
  }
  enter('old')
  return { stream: { relay, head, limits: { resumeWaitMs } }, head, enter }
}

/** Nobody is asked. */
const nobody = (): Promise<string> => Promise.reject(new Error('asked'))

const turn = (): Promise<void> => new Promise<void>(resolve => setImmediate(resolve))

test('[P4] a position of the epoch that the node is in waits for nothing, and nobody is asked', async () => {
  await untilEpochKnown(nodeOf().stream, 'old', nobody)
})

test('[P4] a position of an epoch that is over waits for nothing when the node is in the newest', async () => {
  await untilEpochKnown(nodeOf().stream, 'older', async () => 'old')
})

test('[P4] a position of the newest epoch waits until the node is in it, whatever else moves', async () => {
  const { stream, head, enter } = nodeOf()
  let asked = 0
  let isThere = false
  const waiting = untilEpochKnown(stream, 'new', async () => {
    asked += 1
    return 'new'
  }).then(() => (isThere = true))
  for (let moves = 1; moves <= 3; moves++) {
    await turn()
    expect([asked, isThere]).toEqual([moves, false])
    head.moved()
  }
  await turn()
  enter('new')
  await waiting
  expect(asked).toBe(4)
})

test('[P4] a position of an epoch that ended meanwhile waits until the node is in the newest', async () => {
  const { stream, enter } = nodeOf()
  let isThere = false
  const waiting = untilEpochKnown(stream, 'new', async () => 'newest').then(() => (isThere = true))
  await turn()
  enter('new but one')
  await turn()
  expect(isThere).toBe(false)
  enter('newest')
  await waiting
})

test('[P8] where the epoch cannot be asked it is UNAVAILABLE, and tried again a second later', async () => {
  await expect(untilEpochKnown(nodeOf().stream, 'new', nobody)).rejects.toMatchObject({
    code: 'UNAVAILABLE',
    retryAfterMs: 1000,
    cause: new Error('asked'),
  })
})

test('[P8] a node that does not hear of the newest epoch in time says UNAVAILABLE', async () => {
  await expect(untilEpochKnown(nodeOf(50).stream, 'new', async () => 'new')).rejects.toMatchObject({
    code: 'UNAVAILABLE',
    retryAfterMs: 1000,
  })
})
