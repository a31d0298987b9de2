import { expect, test } from 'vitest'
import {
  carried,
  failed,
  firstRung,
  type Ladder,
  probeAfterMs,
  probedRung,
  rememberedRung,
  risen,
} from '../../../src/client/connection/ladder.ts'

const error = { code: 'CONNECTION_LOST', message: 'cut' }
const fail = (silences: readonly boolean[], from: Ladder = firstRung, rungs = 3): Ladder =>
  silences.reduce((ladder, silent) => failed(ladder, { silent, error, rungs }), from)
const [silent, broke] = [true, false]

test.each([
  ['a link that breaks once is tried again as it is', [broke], 0],
  ['one that breaks twice without a word is left for an event stream', [broke, broke], 1],
  ['silence is enough: a proxy swallows what is sent', [silent], 1],
  ['an event stream that is held back leads to polls', [silent, silent], 2],
  ['one that breaks at once speaks of a server that is down, not of the transport', [broke, broke, broke], 0],
  ['when no transport carried, the first is tried again', [silent, silent, broke], 0],
  ['and then one failure is enough to go on', [silent, silent, broke, broke], 1],
  ['so that polls are reached where both others break at once', [silent, silent, silent, broke, silent], 2],
] as const)('%s', (_name, silences, rung) => {
  expect(fail(silences).rung).toBe(rung)
})

test('with one transport there is nowhere to go', () => {
  expect(fail([silent, silent, broke], firstRung, 1)).toEqual(firstRung)
})

test('the reason is why the first choice was left', () => {
  const later = { code: 'HEARTBEAT_MISSED', message: 'later' }
  expect(failed(fail([silent]), { silent, error: later, rungs: 3 }).reason).toEqual(error)
  expect(carried(fail([broke])).failures).toBe(0)
})

test('a better one is probed ever more seldom, the first choice and those between in turn', () => {
  const waits = [0, 1, 2, 3, 9].map(probes => probeAfterMs({ ...rememberedRung(2, error), probes }, 0))
  expect(waits).toEqual([10_000, 30_000, 90_000, 270_000, 3_600_000])
  expect(probeAfterMs(firstRung, 0)).toBe(null)
  expect([0, 1, 2].map(probes => probedRung({ ...rememberedRung(2, error), probes }))).toEqual([0, 1, 0])
})

test('where a probe was answered and nothing more carries, one failure leads down again', () => {
  const up = risen(rememberedRung(1, error), 0)
  expect(up).toMatchObject({ rung: 0, reason: null })
  expect(fail([broke], up).rung).toBe(1)
})
