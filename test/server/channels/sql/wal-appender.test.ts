import { expect, test } from 'vitest'
import type { Draft } from '../../../../src/server/channels/message.ts'
import { ChannelRules } from '../../../../src/server/channels/rules.ts'
import { WalAppender } from '../../../../src/server/channels/sql/wal-appender.ts'
import { createLog } from '../../../../src/server/log/log.ts'

const draftOf = (lsn: bigint, walIndex: number, payload: string): Draft => ({
  channel: { topic: 'room:1', isPrivate: true },
  id: '00000000-0000-4000-8000-000000000000',
  event: 'said',
  payload,
  isBinary: false,
  sender: { user: null, connection: null },
  sentAtMs: 0,
  to: null,
  stamp: { epoch: '0a0b0c0d', lsn },
  walIndex,
})

/** A relay that answers when the test says so. */
function slowRelay() {
  const asked: (readonly Draft[])[] = []
  const answers: PromiseWithResolvers<readonly []>[] = []
  const publishAll = (drafts: readonly Draft[]): Promise<readonly []> => {
    asked.push(drafts)
    const answer = Promise.withResolvers<readonly []>()
    answers.push(answer)
    return answer.promise
  }
  return { asked, answers, publishAll }
}

const appenderOver = (relay: ReturnType<typeof slowRelay>): WalAppender =>
  new WalAppender({ relay, rules: new ChannelRules([]), log: createLog('silent') })

test('[P4] [P5] commits are appended one after the other, and again until they could be', async () => {
  const relay = slowRelay()
  const appender = appenderOver(relay)
  for (const [lsn, index] of [
    [1n, 0],
    [1n, 1],
    [2n, 0],
  ] as const)
    appender.append(draftOf(lsn, index, '1'))
  await expect.poll(() => relay.asked.length).toBe(1)
  relay.answers[0]!.reject(new Error('away'))
  await expect.poll(() => relay.asked.length).toBe(2)
  relay.answers[1]!.resolve([])
  await expect.poll(() => relay.asked.length).toBe(3)
  const places = relay.asked.map(drafts => drafts.map(({ stamp, walIndex }) => [stamp.lsn, walIndex]))
  // The first was taken when it came alone; what came meanwhile goes with it when it is tried again.
  expect(places.flat().at(-1)).toEqual([2n, 0])
  expect(places[1]).toEqual(
    [
      [1n, 0],
      [1n, 1],
    ].slice(0, places[1]!.length),
  )
  appender.close()
})

test('[P7] past 16 Mi characters there is no room until some were appended', async () => {
  const relay = slowRelay()
  const appender = appenderOver(relay)
  const payload = JSON.stringify('x'.repeat(1024 * 1024))
  for (let n = 0; n < 16; n++) appender.append(draftOf(1n, n, payload))
  const room = appender.room()
  expect(room).not.toBe(null)
  relay.answers[0]!.resolve([])
  await expect.poll(() => relay.asked.length).toBe(2)
  relay.answers[1]!.resolve([])
  await room
  expect(appender.room()).toBe(null)
})
