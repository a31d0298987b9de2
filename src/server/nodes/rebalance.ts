// Gives each node its fair share of the connections, by asking those that hold more to send the rest away.
//
// Each is told how many to keep, not how many to send away: whoever is asked the same again does no more for it. One
// rebalancing runs at a time; who asks for another meanwhile is given the one that runs.
import { randomBytes } from 'node:crypto'
import type { RedisClient } from '../redis/redis.ts'
import { defineScript } from '../redis/redis-script.ts'
import type { LivingNode } from './node-state.ts'
import { rebalanceKey } from './registry.ts'

/** A node that holds so much more than its share is left in peace: a balancer that throws dice is no more exact. */
const tolerance = 0.05
/** A node looks once a second what it is asked; then it takes its time. */
export const lateMs = 5000

/** What each overloaded node is to keep, by its id: every node holds its fair share when they have. */
export function sharesOf(nodes: readonly Pick<LivingNode, 'id' | 'connections'>[]): Map<string, number> {
  const total = nodes.reduce((sum, { connections }) => sum + connections, 0)
  const share = Math.ceil(total / nodes.length)
  const overloaded = nodes.filter(({ connections }) => connections > share * (1 + tolerance))
  return new Map(overloaded.map(({ id }) => [id, share]))
}

export interface Rebalancing {
  readonly id: string
  /** It ran already: somebody else asked for it. */
  readonly isJoined: boolean
  /** Ids of the nodes asked. */
  readonly asked: readonly string[]
  readonly overMs: number
  /** How long ago it began. */
  readonly ageMs: number
}

/** KEYS: the rebalancing. ARGV: id, overMs, nodes, lateMs, ids asked with spaces between, then each and how many it keeps. */
const askScript = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local running = redis.call('HMGET', KEYS[1], 'id', 'overMs', 'asked', 'beganAt')
if running[1] then
  return {running[1], running[2], running[3], string.format('%.0f', math.max(0, now - running[4]))}
end
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'overMs', ARGV[2], 'nodes', ARGV[3], 'asked', ARGV[5],
  'beganAt', string.format('%.0f', now))
for i = 6, #ARGV, 2 do redis.call('HSET', KEYS[1], 'node:' .. ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2] + ARGV[4])
return {ARGV[1], ARGV[2], ARGV[5], '0'}`

/** @param shares as `sharesOf` gives them. @param nodeCount of all nodes. @throws when Redis does not answer */
export async function askToRebalance(
  redis: RedisClient,
  name: string,
  { shares, nodeCount, overMs }: { shares: ReadonlyMap<string, number>; nodeCount: number; overMs: number },
): Promise<Rebalancing> {
  const own = randomBytes(6).toString('base64url')
  const values = [own, overMs, nodeCount, lateMs, [...shares.keys()].join(' '), ...[...shares].flat()]
  // Texts only.
  const answer = ((await defineScript(redis, askScript)([rebalanceKey(name)], values)) as Buffer[]).map(String)
  const [id, duration, asked, ageMs] = answer as [string, string, string, string]
  const isJoined = id !== own
  return { id, isJoined, asked: asked.split(' '), overMs: Number(duration), ageMs: Number(ageMs) }
}

/** Whether all that were asked have done what they could, or live no more. */
export const isOver = ({ id, asked }: Pick<Rebalancing, 'id' | 'asked'>, nodes: readonly LivingNode[]): boolean =>
  nodes.every(node => !asked.includes(node.id) || (node.moving?.rebalancing === id && node.moving.isOver))

/** Makes way for the next one. @throws when Redis does not answer */
export async function endRebalancing(redis: RedisClient, name: string, id: string): Promise<void> {
  const script = `if redis.call('HGET', KEYS[1], 'id') == ARGV[1] then redis.call('DEL', KEYS[1]) end`
  await defineScript(redis, script)([rebalanceKey(name)], [id])
}
