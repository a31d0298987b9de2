// What of a channel's messages is a replay.
import { describe, expect, test } from 'vitest'
import { WHOLE_COMMIT } from '../../../../src/protocol/position.ts'
import { TidegateError } from '../../../../src/protocol/tidegate-error.ts'
import type { Caller, ChannelDoor, HistoryPart } from '../../../../src/server/channels/door.ts'
import { replayOf } from '../../../../src/server/deliver/phoenix/replay.ts'
import { Outgoing } from '../../../../src/server/subscribe/subscription.ts'

const caller: Caller = { principal: { role: 'anon', claims: {}, expiresAt: null }, connection: 'c1' }
const channel = { topic: 'room:1', isPrivate: true }
const part: HistoryPart = { epoch: 'aaaaaaaa', seq: 10n, first: 1n, messages: [], looked: null }

const doorAnswering = (history: ChannelDoor['history']): Pick<ChannelDoor, 'history'> => ({ history })
const standing = doorAnswering(async () => part)

const message = (epoch: string, seq: bigint, sentAt: string): Outgoing =>
  new Outgoing('message', `{"id":"i","event":"e","payload":{},"sender":null,"sentAt":"${sentAt}"}`, {
    epoch,
    lsn: seq,
    index: WHOLE_COMMIT,
  })

const sinceMs = Date.parse('2026-01-01T12:00:00.000Z')
const [before, at, after] = ['2026-01-01T11:59:59.999Z', '2026-01-01T12:00:00.000Z', '2026-01-01T12:00:01.000Z']

test('what stood before the join is replayed from the time asked for, and what came later is live whatever its time', async () => {
  const replay = (await replayOf(standing, caller, channel, { sinceMs, limit: 5 }))!
  expect(replay.last).toBe(5)
  expect(replay.judge(message('aaaaaaaa', 9n, before))).toBe('passed over')
  expect(replay.judge(message('aaaaaaaa', 9n, at))).toBe('replayed')
  expect(replay.judge(message('aaaaaaaa', 10n, after))).toBe('replayed')
  for (const sentAt of [before, at, after]) expect(replay.judge(message('aaaaaaaa', 11n, sentAt))).toBe('live')
})

test('after the numbers of the channel went into another epoch nothing is held back', async () => {
  const replay = (await replayOf(standing, caller, channel, { sinceMs, limit: 5 }))!
  expect(replay.judge(message('bbbbbbbb', 3n, before))).toBe('live')
})

test('nothing is looked up where nothing is asked for', async () => {
  const door = doorAnswering(() => Promise.reject(new Error('asked')))
  expect(await replayOf(door, caller, channel, null)).toBeNull()
})

test('no more than Supabase replays is replayed', async () => {
  expect((await replayOf(standing, caller, channel, { sinceMs, limit: 1000 }))!.last).toBe(25)
})

describe('a join is refused in the words of Supabase', () => {
  test('where the channel is public', async () => {
    const name = { ...channel, isPrivate: false }
    await expect(replayOf(standing, caller, name, { sinceMs, limit: 5 })).rejects.toMatchObject({
      message: 'UnableToReplayMessages: Replay is not allowed for public channels',
    })
  })

  test('where what is asked for is nothing that it takes', async () => {
    await expect(replayOf(standing, caller, channel, 'invalid')).rejects.toMatchObject({
      message: 'UnableToReplayMessages: Replay params are not valid',
    })
  })

  test('where nothing is kept, and told what to do; any other refusal goes on as it is', async () => {
    const off = doorAnswering(() => Promise.reject(new TidegateError('HISTORY_OFF', 'it keeps no history')))
    await expect(replayOf(off, caller, channel, { sinceMs, limit: 5 })).rejects.toMatchObject({
      code: 'HISTORY_OFF',
      message: expect.stringMatching(/^UnableToReplayMessages: it keeps no history; give the rule a history entry/),
    })
    const refused = new TidegateError('CHANNEL_REFUSED', 'no policy')
    const door = doorAnswering(() => Promise.reject(refused))
    await expect(replayOf(door, caller, channel, { sinceMs, limit: 5 })).rejects.toBe(refused)
  })
})
