// Everything that a commit says, in a form that can be compared; and random commits.
import fc from 'fast-check'
import type { Change, Commit, Tuple } from '../../../src/server/decode/change.ts'
import { TransactionAssembler, type TransactionOptions } from '../../../src/server/decode/transaction.ts'
import * as wire from '../decode/wire-bytes.ts'

export function commitsOf(messages: readonly Buffer[], options?: TransactionOptions): Commit[] {
  const assembler = new TransactionAssembler(options)
  return messages.map(message => assembler.push(message)).filter(commit => commit !== null)
}

const texts = (tuple: Tuple): unknown[] => tuple.relation.columns.map((_, column) => tuple.text(column))

const shown = (change: Change): unknown[] => [
  change.kind,
  change.index,
  change.relation,
  ...('old' in change ? [texts(change.old)] : []),
  ...('new' in change ? [texts(change.new)] : []),
]

export function factsOf(commit: Commit): object {
  const { xid, commitLsn, endLsn, committedAtMicros, bytes, relations, changeCount } = commit
  return {
    ...{ xid, commitLsn, endLsn, committedAtMicros, bytes, relations: [...relations], changeCount },
    layouts: [...commit.layouts],
    announced: [...commit.announced],
    messages: [...commit.messages],
    changes: Array.from(commit.changes(), shown),
    passing: Array.from(commit.passing(), shown),
    fromMiddle: Array.from(commit.changes(changeCount >> 1), shown),
    past: [...commit.changes(changeCount)],
  }
}

/** Which of the Relation objects are the same one, wherever commits name them. */
export function identitiesOf(commits: readonly Commit[]): number[] {
  const relations = commits.flatMap(commit => [
    ...commit.layouts,
    ...commit.announced,
    ...Array.from(commit.changes(), change => change.relation),
  ])
  const distinct = [...new Set(relations)]
  return relations.map(relation => distinct.indexOf(relation))
}

const oids = [1, 2, 0xffff_ffff]
const oid = fc.constantFrom(...oids)
const value = fc.option(fc.string({ unit: 'grapheme', maxLength: 12 }), { nil: null })
const row = fc.tuple(value, value)
const identity = fc.constantFrom('d' as const, 'f' as const, 'n' as const, 'i' as const)
const name = fc.constantFrom('rooms', 'räume', '')
const described = fc
  .tuple(oid, identity, name)
  .map(([oid, identity, name]) => wire.relation(oid, name, identity, ['id*', 'b']))
const logical = fc
  .tuple(fc.string({ maxLength: 5 }), fc.string({ maxLength: 9 }))
  .map(([prefix, content]) => wire.message(prefix.replaceAll('\0', ''), content))
const plain = fc.tuple(oid, row).map(([oid, values]) => wire.insert(oid, values))
const message = fc.oneof(
  { arbitrary: plain, weight: 5 },
  fc.tuple(oid, row).map(([oid, values]) => wire.update(oid, values)),
  fc.tuple(oid, row, row).map(([oid, old, values]) => wire.update(oid, values, ['K', old])),
  fc.tuple(oid, row).map(([oid, old]) => wire.remove(oid, ['O', old])),
  fc.subarray(oids, { minLength: 1 }).map(oids => wire.truncate(oids)),
  logical,
  described,
)
const transaction = fc.record({
  xid: fc.integer({ min: 0, max: 0xffff_ffff }),
  step: fc.bigInt(1n, 2n ** 40n),
  length: fc.bigInt(0n, 2n ** 20n),
  micros: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
  // Nearly every commit of a real stream has rows of one table and nothing else.
  messages: fc.oneof(fc.array(message, { maxLength: 12 }), fc.array(plain, { minLength: 1, maxLength: 1 })),
})

export const firstLsn = 8n

/** Messages of up to five commits, after `firstLsn - 1`, of three tables, which are described anew now and then. */
export const randomMessages: fc.Arbitrary<Buffer[]> = fc
  .array(transaction, { minLength: 1, maxLength: 5 })
  .map(transactions => {
    let lsn = firstLsn - 1n
    return transactions.flatMap(({ xid, step, length, micros, messages }, index) => {
      lsn += step
      const descriptions = index === 0 ? oids.map(oid => wire.relation(oid, `t${oid}`, 'd', ['id*', 'b'])) : []
      return [wire.begin(xid, lsn, micros), ...descriptions, ...messages, wire.commit(lsn, lsn + length, micros)]
    })
  })
