import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** Those that mostly wait, for leases to end and silence to be noticed: they use less than a third of a core each. */
const waiting = [
  'test/client/behaviour/**/*.test.ts',
  'test/client/moments/**/*.test.ts',
  'test/faults/network-to-postgres*.test.ts',
  'test/many-nodes/{away-,channels-faults,probes,relay-cluster,relay-sentinel,relay-standalone}*.test.ts',
  'test/react/react.e2e*.test.ts',
  'test/resume*.test.ts',
  'test/server/asked-failures*.test.ts',
  'test/server/channels/clock*.test.ts',
  'test/server/channels/presence/redis-presence*.test.ts',
  'test/server/channels/relay/redis-relay-failover*.test.ts',
  'test/server/nodes/registry*.test.ts',
  'test/server/planted*.test.ts',
  'test/server/redis-failover*.test.ts',
  'test/server/relay/redis-journal*.test.ts',
  'test/server/wal/leadership*.test.ts',
  'test/supabase/node*.test.ts',
]

/** A minute and more each. Begun last, one of them would keep a worker long after the others have nothing to do. */
const longest = [
  'client/behaviour/chromium',
  'client/behaviour/faults',
  'test/resume',
  'client/moments',
  'faults/network-to-postgres',
  'client/behaviour/fallback',
  'supabase/reconnects',
  'faults/slow-readers',
  'crowd/channels',
  'test/night',
  'histories/caught',
  'test/torture',
  'checker/caught',
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

const common = {
  // Of what hangs, not of what is slow: the machine may have ten other things to do.
  testTimeout: 60_000,
  hookTimeout: 120_000,
  expect: { poll: { timeout: 20_000 } },
  pool: 'forks',
} as const

export default defineConfig({
  test: {
    // Once, for both: a Postgres for all files.
    globalSetup: ['test/support/global-setup.ts'],
    sequence: { sequencer: LongestFirst },
    reporters: ['default'],
    projects: [
      {
        test: {
          ...common,
          name: 'waiting',
          include: waiting,
          maxWorkers: 4,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          ...common,
          name: 'working',
          include: ['test/**/*.test.ts'],
          exclude: waiting,
          // Three are a fifth faster on two cores, and then some wait too long for others.
          maxWorkers: 2,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
})
