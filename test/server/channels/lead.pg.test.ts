// What the database says, where the slot goes from one node to another.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Channels } from '../../../src/server/channels/channels.ts'
import { alwaysAllowed } from '../../../src/server/channels/guards/permission.ts'
import { MemoryPresence } from '../../../src/server/channels/presence/memory-presence.ts'
import { MemoryChannelRelay } from '../../../src/server/channels/relay/memory-relay.ts'
import { ChannelRules } from '../../../src/server/channels/rules.ts'
import type { Commit } from '../../../src/server/decode/change.ts'
import { createLog } from '../../../src/server/log/log.ts'
import { Head } from '../../../src/server/relay/head.ts'
import { steadyNow } from '../../../src/server/steady-clock.ts'
import { ChannelDatabase, payloadOf } from './sql/sql.ts'

let database: ChannelDatabase

beforeAll(async () => {
  database = await ChannelDatabase.create()
})

afterAll(async () => {
  await database?.[Symbol.asyncDispose]()
})

test('[P4] what commits said while another node held the slot is appended by the next, once: also of the one that is being served', async () => {
  const commits: Commit[] = []
  for (const n of [1, 2, 3])
    commits.push(...(await database.commits([`SELECT realtime.send('{"n": ${n}}', 'said', 'room:1')`])))
  const head = new Head()
  let isLeading = false
  const relay = new MemoryChannelRelay({ now: steadyNow, random: Math.random })
  const channels = new Channels({
    relay,
    presence: new MemoryPresence({ tell: (channel, diff) => relay.tellPresence(channel, diff) }),
    guards: { acquire: async () => alwaysAllowed },
    rules: new ChannelRules([{ pattern: '*', history: { length: 10, ageMs: 60_000 } }]),
    window: {
      epoch: 'epoch',
      floorLsn: 0n,
      life: 1,
      between: (after, upTo) => commits.slice(0, 2).filter(({ commitLsn }) => commitLsn > after && commitLsn <= upTo),
    },
    head,
    epochNow: async () => 'epoch',
    caughtUp: async () => {},
    nudge: async () => {},
    isLeading: () => isLeading,
    isPublicOpen: true,
    waitForTransaction: async () => ({ epoch: 'epoch', lsn: 0n, index: 0 }),
    log: createLog('silent'),
    now: steadyNow,
    wallNow: Date.now,
  })
  head.begin(0n)
  const serve = (commit: Commit): void => {
    for (const _ of channels.serve(commit));
  }
  serve(commits[0]!)
  head.lsn = commits[0]!.commitLsn
  // Served, but for the moment in which the head moves.
  serve(commits[1]!)
  isLeading = true
  channels.lead()
  head.lsn = commits[1]!.commitLsn
  serve(commits[2]!)
  const said = async (): Promise<unknown[]> =>
    (await relay.read('private/room:1', { after: 0n, limit: 10 })).messages.map(
      message => (payloadOf(message) as { n: number }).n,
    )
  await expect.poll(said).toEqual([1, 2, 3])
  channels.lead()
  serve(commits[2]!)
  await new Promise(resolve => setTimeout(resolve, 50))
  expect(await said()).toEqual([1, 2, 3])
  await channels.close()
})
