import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** A minute and more each, most of it waiting. Begun last, one of them would keep a worker long after the others have nothing to do. */
const longest = [
  'client/behaviour/chromium',
  'client/behaviour/faults',
  'test/resume',
  'faults/slow-readers',
  'faults/network-to-postgres',
  'client/moments',
  'test/torture',
  'client/behaviour/fallback',
  'test/supabase',
  'docs/guide',
  'many-nodes',
]

const rankOf = ({ moduleId }: TestSpecification): number => {
  const rank = longest.findIndex(name => moduleId.includes(name))
  return rank < 0 ? longest.length : rank
}

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    return (await super.sort(files)).sort((a, b) => rankOf(a) - rankOf(b))
  }
}

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    // Of what hangs, not of what is slow: the machine may have ten other things to do.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    expect: { poll: { timeout: 20_000 } },
    pool: 'forks',
    // Three are a fifth faster on two cores, and then some wait too long for others.
    maxWorkers: 2,
    sequence: { sequencer: LongestFirst },
    reporters: ['default'],
  },
})
