import { expect, test } from 'vitest'
import { epochOf } from '../../../src/server/wal/slot.ts'
import { decideEpoch, needsHistory, parseHistory } from '../../../src/server/wal/timeline.ts'
import type { Held } from '../../../src/server/wal/wal-source.ts'

const slotName = 'tidegate_0a1b2c3d'
const systemId = '7300000000000000000'
const epochOn = (timeline: string): string => epochOf({ systemId, timeline }, slotName)

/** Timeline 3: it left 1 at 0/5000 and 2 at 0/7000. */
const file = '1\t0/5000\tno recovery target specified\n\n2\t0/7000\tno recovery target specified\n'

const decide = (timeline: string, held: Held | null, history = file) =>
  decideEpoch({ system: { systemId, timeline }, slotName, held, history: parseHistory(history) })

const held = (began: string, timeline: string, headEndLsn: bigint): Held => ({
  epoch: epochOn(began),
  timeline,
  headEndLsn,
})

test('a history file is read as Postgres writes it, comments left out', () => {
  expect(parseHistory(`# by hand\n${file}10\t16/B374D848\tbefore 2026-05-01 12:00:00+00\n`)).toEqual([
    { timeline: '1', lsn: 0x5000n },
    { timeline: '2', lsn: 0x7000n },
    { timeline: '10', lsn: 0x16b374d848n },
  ])
  expect(parseHistory('')).toEqual([])
  expect(parseHistory('1\tnonsense\tx')).toEqual([])
})

test('nothing held, or the same line: the epoch is the hash, and no history is asked for', () => {
  expect(decide('3', null)).toEqual({ epoch: epochOn('3'), lost: null })
  expect(decide('3', held('3', '3', 0x9000n))).toEqual({ epoch: epochOn('3'), lost: null })
  expect(needsHistory(null, { systemId, timeline: '3' }, slotName)).toBe(false)
  expect(needsHistory(held('3', '3', 1n), { systemId, timeline: '3' }, slotName)).toBe(false)
  expect(needsHistory(held('1', '3', 1n), { systemId, timeline: '3' }, slotName)).toBe(true)
  // The first timeline has no history file: to ask for it would be an error in the log.
  expect(needsHistory(held('2', '2', 1n), { systemId, timeline: '1' }, slotName)).toBe(false)
})

test.each<[what: string, timeline: string, held: Held]>([
  ['up to the switch', '3', held('2', '2', 0x7000n)],
  ['before the switch of an older ancestor', '3', held('1', '1', 0x4fffn)],
  ['that was carried over before, on the same line', '3', held('1', '3', 0x9000n)],
  ['that was carried over before, now over another switch', '3', held('1', '2', 0x7000n)],
])('[P4] an epoch %s goes on', (_, timeline, of) => {
  expect(decide(timeline, of)).toEqual({ epoch: of.epoch, lost: null })
})

test.each<[what: string, timeline: string, held: Held, history: string, lost: string]>([
  ['past the switch', '3', held('2', '2', 0x7001n), file, 'commits up to 0/7001 had been told'],
  ['past the switch of an older ancestor', '3', held('1', '1', 0x5001n), file, 'left timeline 1 at 0/5000'],
  ['of a sibling line', '3', held('1', '4', 0x100n), file, 'does not descend from timeline 4'],
  ['of a line that is not an ancestor', '3', held('4', '4', 0x100n), file, 'does not descend from the one'],
  ['whose history is gone', '3', held('1', '3', 0x100n), '', 'does not descend from the one'],
  ['of another system', '1', { ...held('1', '1', 1n), epoch: '0badc0de' }, '', `of the database ${systemId}`],
])('[P4] an epoch %s ends, and the reason is told', (_, timeline, of, history, lost) => {
  const decision = decide(timeline, of, history)
  expect(decision.epoch).toBe(epochOn(timeline))
  expect(decision.lost).toContain(lost)
})

test('[P8] who lost commits to a standby that lacked them is told how to prevent it', () => {
  expect(decide('3', held('2', '2', 0x7001n)).lost).toContain('synchronized_standby_slots')
})
