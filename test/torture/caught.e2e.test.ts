// Torture can fail: each of the mistakes that a journal between nodes invites, planted in their sources, ends the run as broken.
// About three minutes; run by `npm run torture:caught`, and not with the suite.
import { describe, expect, test } from 'vitest'
import type { Harm } from '../checker/untrue.ts'
import type { DueFault } from './faults.ts'
import { type TortureReport, torture } from './torture.ts'

const whenRedisIsStopped: readonly DueFault[] = [
  { afterMs: 2000, fault: { what: 'redis stopped', forMs: 4000 } },
  { afterMs: 2500, fault: { what: 'node killed', whom: 'leader', forMs: 0 } },
]
const whenRedisIsRolledBack: readonly DueFault[] = [
  { afterMs: 2000, fault: { what: 'redis rolled back', byMs: 2500, forMs: 0 } },
]
/** Of a follower that reads nothing meanwhile, for longer than acknowledgements are held back. */
const whenRedisIsEmptied: readonly DueFault[] = [
  {
    afterMs: 2000,
    fault: {
      what: 'connections black-holed',
      whom: 'follower',
      to: 'redis',
      ways: ['up', 'down'],
      share: 1,
      forMs: 7000,
    },
  },
  { afterMs: 3000, fault: { what: 'redis emptied', forMs: 0 } },
]

const mistakes: readonly {
  readonly plant: string
  readonly plan: readonly DueFault[]
  readonly holdMs: number
  readonly harms: readonly Harm[]
}[] = [
  {
    plant: 'acknowledged before it is stored',
    plan: whenRedisIsStopped,
    holdMs: 5000,
    harms: ['lost', 'resync without a cause'],
  },
  {
    plant: 'IDs from a counter',
    plan: whenRedisIsRolledBack,
    holdMs: 5000,
    harms: ['lost', 'resync without a cause'],
  },
  { plant: 'no check of the chain', plan: whenRedisIsEmptied, holdMs: 500, harms: ['lost', 'leaked', 'wrong'] },
  { plant: 'a replay that is not judged again', plan: [], holdMs: 5000, harms: ['leaked'] },
]

function run(options: { plan: readonly DueFault[]; holdMs: number; plant?: string }): Promise<TortureReport> {
  return torture({
    seed: 1,
    minutes: 1,
    roundMs: 12_000,
    nodes: 3,
    clients: 40,
    writers: 10,
    truncateOneIn: 1000,
    largeRows: 300,
    faultEveryMs: 1000,
    windowMs: 300_000,
    spoolBytes: 2 ** 25,
    say: line => console.log(line),
    ...options,
  })
}

describe.runIf(process.env.TORTURE_CAUGHT === '1')('what is planted is noticed', () => {
  test.each(mistakes)('$plant', { timeout: 300_000 }, async ({ plant, plan, holdMs, harms }) => {
    const { found, failures } = await run({ plan, holdMs, plant })
    console.log(failures.at(-1))
    expect(harms.reduce((sum, harm) => sum + found[harm], 0)).toBeGreaterThan(0)
  })

  test('[P4] the same faults without a mistake break nothing', { timeout: 300_000 }, async () => {
    const plan = [...whenRedisIsStopped, ...whenRedisIsRolledBack, ...whenRedisIsEmptied]
    const { failures } = await run({ plan, holdMs: 500 })
    expect(failures).toEqual([])
  })
})
