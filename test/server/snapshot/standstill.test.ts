// Whoever begins while the stream stands still is sent away soon, and whoever has something already waits longer.
import { expect, test } from 'vitest'
import type { Lane } from '../../../src/server/postgres/database.ts'
import { Head } from '../../../src/server/relay/head.ts'
import { SnapshotReader } from '../../../src/server/snapshot/reader.ts'
import { expectWithin } from '../../support/within.ts'

const unused = {} as Lane
const beacon = { emit: () => Promise.resolve({ id: '' }) }

function standing(): { reader: SnapshotReader; stream: { isStale: boolean } } {
  const stream = { isStale: true }
  const isStale = (): boolean => stream.isStale
  const reader = new SnapshotReader({
    snapshots: unused,
    reads: unused,
    head: new Head(),
    beacon,
    timeoutMs: 4000,
    isStale,
  })
  return { reader, stream }
}

const refused = { code: 'UNAVAILABLE', message: 'the stream stands still', retryAfterMs: 2000 }

test.concurrent('[P8] a stream that stands still: newcomers are told within seconds when to come again, and nothing is read for them', async () => {
  const { reader } = standing()
  const beganAt = performance.now()
  await Promise.all([
    expect(reader.moving()).rejects.toMatchObject(refused),
    expect(reader.passed(1n, true)).rejects.toMatchObject(refused),
  ])
  expectWithin(performance.now() - beganAt, 5000)
})

test.concurrent('a stream that moves again lets newcomers in, and what is behind it takes its time', async () => {
  const { reader, stream } = standing()
  const moving = reader.moving()
  stream.isStale = false
  await moving
  await expect(reader.passed(1n, true)).rejects.toMatchObject({ message: 'the stream does not move' })
})

test.concurrent('who follows already waits through a standstill', async () => {
  const { reader } = standing()
  await expect(reader.passed(1n)).rejects.toMatchObject({ message: 'the stream does not move' })
})
