// One row message of pgoutput as a change, its columns still bytes.
import type { Change, Relation } from './change.ts'
import { unreadable } from './pgoutput.ts'
import { identityView, WireTuple } from './tuple.ts'

export const [insert, update, remove] = [0x49, 0x55, 0x44] as const // 'I', 'U', 'D'
/** Stands for a truncated table in a list of messages. */
export const truncation: Buffer = Buffer.alloc(0)

/** An Insert, Update or Delete message, or the empty one for a truncation, as a change.
 *  @throws WAL_UNREADABLE */
export function changeOf(bytes: Buffer, relation: Relation, index: number): Change {
  if (bytes.length === 0) return { kind: 'truncate', index, relation }
  const tupleLetter = bytes[5]
  // The partition decides what the old tuple holds, not the letter: see relation-cache.ts.
  const identityOnly = relation.replicaIdentity !== 'full'
  switch (bytes[0]) {
    case insert:
      if (tupleLetter !== newTuple) break
      return { kind: 'insert', index, relation, new: new WireTuple(relation, bytes, 6) }
    case update: {
      if (tupleLetter === newTuple) {
        const after = new WireTuple(relation, bytes, 6)
        return { kind: 'update', index, relation, old: identityView(after), new: after }
      }
      if (tupleLetter !== keyTuple && tupleLetter !== oldTuple) break
      const old = new WireTuple(relation, bytes, 6, identityOnly)
      if (bytes[old.end] !== newTuple) break
      return { kind: 'update', index, relation, old, new: new WireTuple(relation, bytes, old.end + 1) }
    }
    case remove:
      if (tupleLetter !== keyTuple && tupleLetter !== oldTuple) break
      return { kind: 'delete', index, relation, old: new WireTuple(relation, bytes, 6, identityOnly) }
  }
  throw unreadable(`the tuple of a change to ${relation.schema}.${relation.name} is of an unknown kind`, bytes)
}

const [newTuple, keyTuple, oldTuple] = [0x4e, 0x4b, 0x4f] // 'N', 'K', 'O'
