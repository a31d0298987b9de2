// Torture of channels can fail: each of the mistakes that channels between nodes invite ends the run as broken. About five minutes;
// run by `npm run torture:channels:caught`, and not with the suite.
import { describe, expect, test } from 'vitest'
import type { DueFault } from '../faults.ts'
import type { Harm } from './ledger.ts'
import { type ChannelTortureReport, tortureChannels } from './torture.ts'

/** A node that is told of no commits for a while, and of messages all the same. */
const whenStreamsLag: readonly DueFault[] = Array.from({ length: 4 }, () => ({
  afterMs: 2000,
  fault: {
    ...{ what: 'connections black-holed', whom: 'follower', to: 'redis', ways: ['down'], share: 1 },
    ...{ carrying: 'reader', forMs: 2500 },
  },
}))
const whenRedisIsRolledBack: readonly DueFault[] = [
  { afterMs: 2000, fault: { what: 'redis rolled back', byMs: 2500, forMs: 0 } },
]
const whenTheLeaderIsKilled: readonly DueFault[] = [
  { afterMs: 4000, fault: { what: 'node killed', whom: 'leader', forMs: 0 } },
]

const mistakes: readonly {
  readonly plant: string
  readonly plan: readonly DueFault[]
  readonly harms: readonly Harm[]
}[] = [
  { plant: 'a member that stays at a revocation', plan: [], harms: ['leaked'] },
  { plant: 'stamps that nobody looks at', plan: whenStreamsLag, harms: ['leaked'] },
  { plant: 'messages lost between nodes, and holes that nobody notices', plan: [], harms: ['lost'] },
  { plant: 'commits appended to a history again', plan: [], harms: ['repeated', 'disordered'] },
  {
    plant: 'a history that goes on after it was lost',
    plan: whenRedisIsRolledBack,
    harms: ['disordered', 'lost', 'repeated'],
  },
  { plant: 'somebody present who has left', plan: [], harms: ['wrong'] },
]

function run(options: { plan: readonly DueFault[]; plant?: string }): Promise<ChannelTortureReport> {
  return tortureChannels({
    seed: 1,
    minutes: 0.3,
    roundMs: 12_000,
    nodes: 3,
    listeners: 30,
    speakers: 2,
    faultEveryMs: 1000,
    say: line => console.log(line),
    ...options,
  })
}

describe.runIf(process.env.TORTURE_CAUGHT === '1')('what is planted is noticed', () => {
  test.each(mistakes)('$plant', { timeout: 300_000 }, async ({ plant, plan, harms }) => {
    const { found, failures } = await run({ plan, plant })
    console.log(failures.at(-1))
    expect(harms.reduce((sum, harm) => sum + found[harm], 0)).toBeGreaterThan(0)
  })

  test('[P4] messages that are lost between nodes are read from the history, or told as a gap', {
    timeout: 300_000,
  }, async () => {
    const { failures, gaps } = await run({ plan: [], plant: 'messages lost between nodes' })
    expect(failures).toEqual([])
    expect(gaps).toBeGreaterThan(0)
  })

  test('[P4] the same faults without a mistake break nothing', { timeout: 300_000 }, async () => {
    const plan = [...whenStreamsLag, ...whenRedisIsRolledBack, ...whenTheLeaderIsKilled]
    const { failures } = await run({ plan })
    expect(failures).toEqual([])
  })
})
