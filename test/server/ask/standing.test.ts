import { expect, test } from 'vitest'
import { standingOf } from '../../../src/server/ask/standing.ts'
import type { Commit } from '../../../src/server/decode/change.ts'
import { parseSnapshot } from '../../../src/server/wal/visibility.ts'

/** Commits by transaction, at 10, 20, 30 ...; `other` ones touch nothing that is followed. */
function relayOf(xids: readonly number[], { floorLsn = 0n, other = [] as readonly number[] } = {}) {
  const commits = xids.map(
    // Of a commit it looks at these alone.
    (xid, i): Pick<Commit, 'xid' | 'commitLsn' | 'relations'> => ({
      xid,
      commitLsn: BigInt(10 * (i + 1)),
      relations: new Set(other.includes(xid) ? [] : [1]),
    }),
  ) as Commit[]
  return {
    floorLsn,
    unseen: (snapshot: ReturnType<typeof parseSnapshot>, upTo: bigint) =>
      commits.filter(({ xid, commitLsn }) => commitLsn <= upTo && !snapshot.sees(xid)),
    between: (after: bigint, upTo: bigint) => commits.filter(({ commitLsn }) => commitLsn > after && commitLsn <= upTo),
  }
}

const at = { headLsn: 30n, fence: 100n }

test('a snapshot that sees every commit stands at the head, and shows the database up to what comes next', () => {
  expect(standingOf(relayOf([1, 2, 3]), parseSnapshot('4:4:'), at)).toEqual({ lsn: 30n, limit: 99n })
})

test('[P1] one that does not see the last ones stands before them', () => {
  expect(standingOf(relayOf([1, 2, 3]), parseSnapshot('2:4:2,3'), at)).toEqual({ lsn: 19n, limit: 19n })
})

test('[P2] one that sees a later commit and not an earlier stands nowhere', () => {
  expect(standingOf(relayOf([1, 2, 3]), parseSnapshot('2:4:2'), at)).toBe(null)
})

test('commits that touch nothing followed do not count', () => {
  expect(standingOf(relayOf([1, 2, 3], { other: [2] }), parseSnapshot('2:4:2'), at)).toEqual({ lsn: 30n, limit: 99n })
  expect(standingOf(relayOf([1, 2, 3], { other: [3] }), parseSnapshot('2:4:2'), at)).toEqual({ lsn: 19n, limit: 19n })
})

test('[P2] a commit that stays unseen until it has left the window: nobody knows what came behind it', () => {
  expect(standingOf(relayOf([1, 2, 3], { floorLsn: 25n }), parseSnapshot('2:4:2,3'), at)).toBe(null)
})
