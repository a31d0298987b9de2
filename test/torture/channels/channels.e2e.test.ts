// Torture of channels in short, as part of every run of the tests. `npm run torture:channels` runs it for as long as you like.
import { expect, test } from 'vitest'
import { tortureChannels } from './torture.ts'

const seed = Number(process.env.TEST_SEED ?? 2)

test('[P2] [P3] [P4] [P5] channels of three nodes under kills, freezes, cuts and a Redis that forgets: each message once, in order, to whom it is for', {
  timeout: 300_000,
}, async () => {
  const { failures, faults, messages, deliveries } = await tortureChannels({
    seed,
    minutes: 0.4,
    least: { faults: 6, messages: 800, deliveries: 1500 },
    roundMs: 12_000,
    nodes: 3,
    listeners: 20,
    speakers: 2,
    faultEveryMs: 900,
    say: line => console.log(`torture of channels: ${line}`),
  })
  expect(failures).toEqual([])
  // A run in which nothing befell or nothing was said would pass too.
  expect(faults).toBeGreaterThan(5)
  expect(deliveries).toBeGreaterThan(1000)
  for (const way of ['socket', 'post', 'sql']) expect(messages[`${way} accepted`]).toBeGreaterThan(20)
})
