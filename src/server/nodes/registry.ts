// Who is here: each node of a deployment holds a lease in Redis, renewed every second and gone after five without.
//
// Redis's own clock decides, because the nodes' clocks may differ and may be set. It too may jump, with a failover for
// instance: a lease from its future is as dead as one from long ago, and whoever lives renews it within a second. All that
// a node says, hears and is asked goes in one round trip.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Log } from '../log/log.ts'
import type { RedisClient } from '../redis/redis.ts'
import { defineScript } from '../redis/redis-script.ts'
import type { LivingNode, MoveOrder, NodeState } from './node-state.ts'

const renewMs = 1000
const leaseMs = 5000

/** KEYS: the nodes, the rebalancing under way. ARGV: id of the node or '', its state, leaseMs.
 *  Answers what the node is asked or '', then its rebalancing, over how long, of how many nodes, how old, then id and state of
 *  each living node. What it is asked is taken with it: nobody is asked twice. */
const renewScript = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local keep, of = '', {'', '', '', '0'}
if ARGV[1] ~= '' then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now) .. ' ' .. ARGV[2])
  redis.call('PEXPIRE', KEYS[1], 10 * ARGV[3])
  keep = redis.call('HGET', KEYS[2], 'node:' .. ARGV[1]) or ''
  if keep ~= '' then
    redis.call('HDEL', KEYS[2], 'node:' .. ARGV[1])
    of = redis.call('HMGET', KEYS[2], 'id', 'overMs', 'nodes', 'beganAt')
  end
end
local answer = {keep, of[1], of[2], of[3], string.format('%.0f', math.max(0, now - of[4]))}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local space = string.find(all[i + 1], ' ', 1, true)
  local seen = tonumber(string.sub(all[i + 1], 1, space - 1))
  if math.abs(now - seen) < tonumber(ARGV[3]) then
    answer[#answer + 1] = all[i]
    answer[#answer + 1] = string.sub(all[i + 1], space + 1)
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return answer`

export const nodesKey = (name: string): string => `{${name}}:nodes`
export const rebalanceKey = (name: string): string => `{${name}}:rebalance`

export interface NodeRegistryOptions {
  /** Random, another after each start. */
  readonly id: string
  /** Answers or fails within its command timeout. */
  readonly redis: RedisClient
  /** TIDEGATE_NAME. */
  readonly name: string
  /** What there is to say of this node now. */
  readonly state: () => NodeState
  readonly onAsked: (order: MoveOrder) => void
  readonly log: Log
}

export class NodeRegistry {
  readonly #options: NodeRegistryOptions
  #nodes: readonly LivingNode[] = []
  #isFailing = false
  #hasLeft = false
  #renewing: Promise<void> = Promise.resolve()

  constructor(options: NodeRegistryOptions) {
    this.#options = options
  }

  get id(): string {
    return this.#options.id
  }

  /** Those that lived a second ago, as Redis told; this one among them. As many as there are nodes. */
  get nodes(): readonly LivingNode[] {
    return this.#nodes
  }

  /** Renews the lease until the signal aborts, or `leave`. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && !this.#hasLeft) {
      this.#renewing = this.#renew()
      await this.#renewing
      await sleep(renewMs, undefined, { signal }).catch(() => {})
    }
  }

  /** Takes this node off the list, at once if Redis answers, else by the end of its lease. */
  async leave(): Promise<void> {
    this.#hasLeft = true
    await this.#renewing
    const { redis, name, log } = this.#options
    try {
      await redis.hdel(nodesKey(name), this.id)
    } catch (error) {
      log.debug({ err: error }, 'could not take this node off the list; its lease ends by itself')
    }
  }

  async #renew(): Promise<void> {
    const { redis, name, state, onAsked, log } = this.#options
    const beganMs = performance.now()
    try {
      const { order, nodes } = await renew(redis, name, { id: this.id, state: state() })
      this.#nodes = nodes
      if (this.#isFailing) log.info('other nodes see this one again')
      this.#isFailing = false
      // Counted from before Redis was asked: rather a connection too few is sent away than one twice.
      if (order !== null) onAsked({ ...order, ageMs: order.ageMs + Math.ceil(performance.now() - beganMs) })
    } catch (error) {
      // Said once, until it works again.
      if (!this.#isFailing) log.warn({ err: error }, 'could not tell Redis that this node is here; trying every second')
      this.#isFailing = true
    }
  }
}

/** The living nodes of a deployment, in no order. @throws when Redis does not answer */
export async function livingNodes(redis: RedisClient, name: string): Promise<readonly LivingNode[]> {
  return (await renew(redis, name, null)).nodes
}

interface Renewed {
  readonly order: MoveOrder | null
  readonly nodes: readonly LivingNode[]
}

async function renew(
  redis: RedisClient,
  name: string,
  own: { readonly id: string; readonly state: NodeState } | null,
): Promise<Renewed> {
  const keys = [nodesKey(name), rebalanceKey(name)]
  const values = [own?.id ?? '', own === null ? '' : JSON.stringify(own.state), leaseMs]
  // Texts only.
  const answer = ((await defineScript(redis, renewScript)(keys, values)) as Buffer[]).map(String)
  const [keep, rebalancing, overMs, nodes, ageMs, ...entries] = answer as [string, string, string, string, string]
  const order = {
    rebalancing,
    keep: Number(keep),
    overMs: Number(overMs),
    nodes: Number(nodes),
    ageMs: Number(ageMs),
  }
  return { order: keep === '' ? null : order, nodes: pairsOf(entries) }
}

function pairsOf(entries: readonly string[]): LivingNode[] {
  const nodes: LivingNode[] = []
  for (let place = 0; place + 1 < entries.length; place += 2)
    nodes.push({ ...(JSON.parse(entries[place + 1]!) as NodeState), id: entries[place]! })
  return nodes
}
