// Spreads connections over the nodes anew, gently: shows who holds how many, asks those with more than their share to send the
// rest away, and shows what became of it.
import { setTimeout as sleep } from 'node:timers/promises'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { LivingNode } from '../../server/nodes/node-state.ts'
import {
  askToRebalance,
  endRebalancing,
  isOver,
  lateMs,
  type Rebalancing,
  sharesOf,
} from '../../server/nodes/rebalance.ts'
import { livingNodes } from '../../server/nodes/registry.ts'
import { closeRedis, openRedis, type RedisClient } from '../../server/redis/redis.ts'
import { assertRedisReady } from '../../server/redis/redis-ready.ts'

export interface RebalanceOptions {
  readonly redisUrl: string
  /** TIDEGATE_NAME. */
  readonly name: string
  /** The whole of it takes so long. */
  readonly overMs: number
  /** Shows what would be asked, and asks nothing. */
  readonly dryRun: boolean
}

export interface Lines {
  /** What was asked for. */
  print(line: string): void
  /** What is said beside it. */
  note(line: string): void
}

const lookMs = 1000
/** Whoever was sent away last needs a moment to be somewhere else, and its node one to say so. */
const settleMs = 5000

/** @returns false when it did not come to its end: what was asked goes on by itself
 *  @throws NODES_TOO_FEW; RELAY_UNREACHABLE when Redis does not answer */
export async function rebalance(options: RebalanceOptions, lines: Lines, signal: AbortSignal): Promise<boolean> {
  const { name, overMs, dryRun } = options
  const redis = openRedis(options.redisUrl, { connectionName: `${name} tidegate rebalance`, commandTimeoutMs: 2000 })
  try {
    await assertRedisReady(redis, { timeoutMs: 5000 })
    const before = await livingNodes(redis, name)
    if (before.length < 2) throw tooFew(name, before)
    const shares = sharesOf(before)
    for (const line of tableOf(before, shares)) lines.print(line)
    if (shares.size === 0) {
      lines.print('Every node holds its share already.')
      return true
    }
    if (dryRun) {
      lines.print('Nothing was asked: --dry-run.')
      return true
    }
    const rebalancing = await askToRebalance(redis, name, { shares, nodeCount: before.length, overMs })
    if (rebalancing.isJoined)
      lines.note(
        `a rebalancing is under way, begun ${seconds(rebalancing.ageMs)} ago; watching that one, asking for no other`,
      )
    const hasEnded = await watch(redis, options, { rebalancing, before }, lines, signal)
    const after = await livingNodes(redis, name)
    lines.print('')
    for (const line of tableOf(after, new Map())) lines.print(line)
    lines.print(summaryOf(rebalancing, after, hasEnded))
    return hasEnded
  } finally {
    closeRedis(redis)
  }
}

/** Until all that were asked are done and whoever they sent away is somewhere again. @returns false when it was not to be */
async function watch(
  redis: RedisClient,
  { name }: RebalanceOptions,
  { rebalancing, before }: { rebalancing: Rebalancing; before: readonly LivingNode[] },
  { note }: Lines,
  signal: AbortSignal,
): Promise<boolean> {
  const beganAt = performance.now() - rebalancing.ageMs
  const deadlineAt = beganAt + rebalancing.overMs + lateMs
  let nodes = before
  let toldAt = performance.now()
  while (!isOver(rebalancing, nodes)) {
    if (signal.aborted || performance.now() > deadlineAt) return false
    if (performance.now() - toldAt >= settleMs) {
      toldAt = performance.now()
      note(
        `${movedBy(rebalancing, nodes)} sent away after ${seconds(toldAt - beganAt)} of ${seconds(rebalancing.overMs)}`,
      )
    }
    await pause(signal)
    // A look that fails is followed by another.
    nodes = await livingNodes(redis, name).catch(() => nodes)
  }
  await endRebalancing(redis, name, rebalancing.id)
  const settledAt = performance.now() + settleMs
  const total = connectionsOf(before)
  do {
    await pause(signal)
    nodes = await livingNodes(redis, name).catch(() => nodes)
  } while (!signal.aborted && connectionsOf(nodes) < total && performance.now() < settledAt)
  return true
}

const pause = (signal: AbortSignal): Promise<void> => sleep(lookMs, undefined, { signal }).catch(() => {})

const connectionsOf = (nodes: readonly LivingNode[]): number =>
  nodes.reduce((sum, { connections }) => sum + connections, 0)

const movedBy = ({ id }: Rebalancing, nodes: readonly LivingNode[]): number =>
  nodes.reduce((sum, { moving }) => sum + (moving?.rebalancing === id ? moving.moved : 0), 0)

function summaryOf(rebalancing: Rebalancing, nodes: readonly LivingNode[], hasEnded: boolean): string {
  const sent = `${movedBy(rebalancing, nodes)} connections were sent away, each once`
  if (hasEnded) return `Done: ${sent}.`
  return `Not done: ${sent} so far. The nodes go on by themselves; run it again to see how far they came.`
}

function tooFew(name: string, nodes: readonly LivingNode[]): TidegateError {
  const found = nodes.length === 0 ? 'no node lives' : `only ${nodes[0]!.address} lives`
  return new TidegateError('NODES_TOO_FEW', `${found} under the name ${name} in this Redis`)
}

/** @param shares what overloaded nodes are to keep */
function tableOf(nodes: readonly LivingNode[], shares: ReadonlyMap<string, number>): string[] {
  const head = ['NODE', 'ADDRESS', 'RELEASE', 'CONNECTIONS', 'LAG', '']
  const rows = nodes
    .toSorted((a, b) => (a.address < b.address ? -1 : 1))
    .map(({ id, address, release, leads, connections, lagMs }) => {
      const share = shares.get(id)
      const remarks = [leads ? 'leads' : '', share === undefined ? '' : `${connections - share} past its share`]
      return [id, address, release, String(connections), `${lagMs} ms`, remarks.filter(text => text !== '').join(', ')]
    })
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map(row => row[column]!.length)))
  return [head, ...rows].map(row =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  )
}

const seconds = (ms: number): string => `${Math.round(ms / 1000)} s`
