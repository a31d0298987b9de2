// Who shares a read of first rows with whom, and what becomes of those who share it when one of them goes.
import { expect, test } from 'vitest'
import type { Lane } from '../../../src/server/postgres/database.ts'
import type { Pin } from '../../../src/server/relay/memory-relay.ts'
import { type FirstRead, FirstReads } from '../../../src/server/snapshot/first-reads.ts'
import type { FencedRows } from '../../../src/server/snapshot/reader.ts'
import { Turns } from '../../../src/server/snapshot/turns.ts'

interface Asked {
  readonly resolve: (rows: FencedRows) => void
  readonly reject: (error: unknown) => void
}

/** Reads that the test answers itself, and pins that it counts. */
function bench() {
  const asked: Asked[] = []
  const held = new Set<Pin>()
  const pin = (): Pin => {
    const made = { release: () => void held.delete(made) } as unknown as Pin
    held.add(made)
    return made
  }
  const reader = {
    asReader: () => new Promise<FencedRows>((resolve, reject) => void asked.push({ resolve, reject })),
  }
  const relay = { life: 1, pin }
  const turns = new Turns({ places: 2, maxWaiting: 10 })
  const reads = new FirstReads({ reader, relay, lane: {} as Lane, turns, timeoutMs: 1000 })
  return { asked, held, reads, relay }
}

const rows = { rows: [['1']] } as unknown as FencedRows
const readOf = (identity: object): FirstRead => ({
  identity,
  audience: 'the same',
  reader: { role: 'authenticated', settings: [], user: null },
  sql: 'SELECT 1',
  values: [],
  tableOid: 1,
  tableName: 'public.t',
})

test('[P4] whoever shares a read keeps what they need of the stream when the first has gone', async () => {
  const { asked, held, reads } = bench()
  const audience = {}
  const [first, second]: [Pin[], Pin[]] = [[], []]
  const one = reads.read(readOf(audience), first)
  const two = reads.read(readOf(audience), second)
  expect(asked).toHaveLength(1)
  for (const each of first) each.release()
  asked[0]!.resolve(rows)
  expect(await one).toBe(rows)
  expect(await two).toBe(rows)
  expect(reads.underWay).toBe(0)
  expect([...held]).toEqual(second)
  for (const each of second) each.release()
  expect(held.size).toBe(0)
})

test('[P2] what was begun before policies changed is shared with nobody who came after, even if they changed back', async () => {
  const { asked, reads } = bench()
  const before = reads.read(readOf({}), [])
  const after = reads.read(readOf({}), [])
  expect(asked).toHaveLength(2)
  for (const each of asked) each.resolve(rows)
  await Promise.all([before, after])
})

test('a read that fails fails for those who share it, and the next asks anew', async () => {
  const { asked, held, reads } = bench()
  const audience = {}
  const both = [reads.read(readOf(audience), []), reads.read(readOf(audience), [])]
  asked[0]!.reject(new Error('gone'))
  expect((await Promise.allSettled(both)).map(({ status }) => status)).toEqual(['rejected', 'rejected'])
  const next = reads.read(readOf(audience), [])
  expect(asked).toHaveLength(2)
  asked[1]!.resolve(rows)
  expect(await next).toBe(rows)
  expect(held.size).toBe(1)
})
