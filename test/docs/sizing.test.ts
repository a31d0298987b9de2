// docs/operations/sizing.md and its formula.
import { readFile } from 'node:fs/promises'
import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { costs, deployments, sizeOf, tableOf, usual } from '../../scripts/sizing.ts'
import { loadConfig } from '../../src/server/config/config.ts'
import { jwtSecret } from '../support/node.ts'

const page = await readFile(new URL('../../docs/operations/sizing.md', import.meta.url), 'utf8')

test('its table is what the formula gives; if not: npm run sizing', () => {
  expect(page).toContain(tableOf(deployments))
})

test('it speaks of the defaults that there are, and of the costs that the formula has', () => {
  const config = loadConfig({ DATABASE_URL: 'postgres://localhost/app', JWT_SECRET: jwtSecret })
  expect([config.maxConnections, config.databasePool]).toEqual([usual.perNode, costs.pool])
  expect(costs.windowMb).toBe((2 * config.windowMaxBytes) / 2 ** 20)
  expect(page).toContain(`SNAPSHOT_CONCURRENCY\` (${config.snapshotConcurrency})`)
  for (const said of [
    `${costs.nodeMb} MB + 2 × WINDOW_MAX_BYTES + of each × (${costs.connectionKb} kB + memberships × ${costs.membershipBytes} bytes)`,
    `M × ${costs.leadMicros} µs  +  M × R ÷ needed ÷ ${costs.deliveriesPerCore.toLocaleString('en-US')}`,
    `M × (${costs.redisMicros} µs + ${costs.redisMicrosPerNode} µs × nodes)`,
  ])
    expect(page).toContain(said)
})

const load = fc.record({
  connections: fc.integer({ min: 0, max: 2_000_000 }),
  commits: fc.integer({ min: 0, max: 10_000 }),
  readers: fc.integer({ min: 0, max: 10_000 }),
  bytes: fc.integer({ min: 100, max: 100_000 }),
  memberships: fc.integer({ min: 0, max: 1000 }),
  perNode: fc.integer({ min: 100, max: 100_000 }),
})

test('when one node is gone the others hold all, none more than it may and none fuller than a third of what was measured', () => {
  fc.assert(
    fc.property(load, given => {
      const { nodes, connections } = sizeOf(given)
      expect(nodes).toBeGreaterThanOrEqual(2)
      expect(connections).toBeLessThanOrEqual(given.perNode)
      expect(connections * (nodes - 1)).toBeGreaterThanOrEqual(given.connections)
      expect((given.commits * given.readers) / (nodes - 1)).toBeLessThanOrEqual(costs.deliveriesPerCore)
    }),
  )
})

test('more of anything never takes less', () => {
  fc.assert(
    fc.property(load, fc.constantFrom('connections', 'commits', 'readers'), (given, name) => {
      const more = sizeOf({ ...given, [name]: given[name] + 1 })
      const size = sizeOf(given)
      expect(more.nodes).toBeGreaterThanOrEqual(size.nodes)
      expect(more.postgresConnections).toBeGreaterThanOrEqual(size.postgresConnections)
      expect(more.redisMbPerSecond).toBeGreaterThanOrEqual(size.redisMbPerSecond)
    }),
  )
})
