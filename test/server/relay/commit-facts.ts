// Everything that a commit says, in a form that can be compared; and random commits.
import fc from 'fast-check'
import type { Change, Commit, Relation, Tuple } from '../../../src/server/decode/change.ts'
import * as wire from '../decode/wire-bytes.ts'

const texts = (tuple: Tuple): unknown[] => tuple.relation.columns.map((_, column) => tuple.text(column))

const shown = (change: Change): unknown[] => [
  change.kind,
  change.index,
  change.relation,
  ...('old' in change ? [texts(change.old)] : []),
  ...('new' in change ? [texts(change.new)] : []),
]

/** Of equal layouts only one: the journal does not tell them apart. */
function distinct(relations: readonly Relation[]): Relation[] {
  const found = new Map(relations.map(relation => [JSON.stringify(relation), relation]))
  return [...found.values()]
}

export function facts(commit: Commit): object {
  const { xid, commitLsn, endLsn, committedAtMicros, bytes, relations, layouts, announced, messages } = commit
  const middle = commit.changeCount >> 1
  return {
    ...{ xid, commitLsn, endLsn, committedAtMicros, bytes, relations: [...relations], layouts: distinct(layouts) },
    ...{ announced: [...announced], changeCount: commit.changeCount, messages: [...messages] },
    changes: [...commit.changes()].map(shown),
    passing: Array.from(commit.passing(), shown),
    fromMiddle: [...commit.changes(middle)].map(shown),
    past: [...commit.changes(commit.changeCount)],
  }
}

const oid = fc.constantFrom(1, 2, 0xffff_ffff)
const value = fc.option(fc.string({ unit: 'grapheme', maxLength: 12 }), { nil: null })
const row = fc.tuple(value, value)
const identity = fc.constantFrom('d' as const, 'f' as const, 'n' as const, 'i' as const)
const name = fc.constantFrom('rooms', 'räume', '')
const described = fc
  .tuple(oid, identity, name)
  .map(([oid, identity, name]) => wire.relation(oid, name, identity, ['id*', 'b']))
const message = fc.oneof(
  { arbitrary: fc.tuple(oid, row).map(([oid, values]) => wire.insert(oid, values)), weight: 5 },
  fc.tuple(oid, row).map(([oid, values]) => wire.update(oid, values)),
  fc.tuple(oid, row, row).map(([oid, old, values]) => wire.update(oid, values, ['K', old])),
  fc.tuple(oid, row).map(([oid, old]) => wire.remove(oid, ['O', old])),
  fc.subarray([1, 2, 0xffff_ffff], { minLength: 1 }).map(oids => wire.truncate(oids)),
  fc
    .tuple(fc.string({ maxLength: 5 }), fc.string({ maxLength: 9 }))
    .map(([prefix, content]) => wire.message(prefix.replaceAll('\0', ''), content)),
  described,
)
const first = [1, 2, 0xffff_ffff].map(oid => wire.relation(oid, `t${oid}`, 'd', ['id*', 'b']))

export const random = {
  /** Messages of up to five commits of three tables, which are described anew now and then. */
  commits: fc
    .array(
      fc.tuple(fc.array(message, { maxLength: 12 }), fc.bigInt(1n, 2n ** 40n), fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n)),
      {
        minLength: 1,
        maxLength: 5,
      },
    )
    .map(transactions => {
      let lsn = 7n
      return transactions.flatMap(([messages, step, micros], index) => {
        lsn += step
        const all = index === 0 ? [...first, ...messages] : messages
        return [wire.begin(index, lsn, micros), ...all, wire.commit(lsn, lsn + 48n, micros)]
      })
    }),
}
