// What channels are named in Redis. Each has a hash tag of its own, so that a Cluster spreads them.
import { Redis } from 'ioredis'
import type { RedisClient } from '../../redis/redis.ts'

/** Parts of one channel that are kept:
 *  - `meta`: hash; epoch and number given last, and what else the script of publishing has to know
 *  - `log`: Stream of the history; the ID of a message is `<number>-0`
 *  - `sent:<idempotency key>`: what came of publishing under it
 *  - `here...`: presence */
export type ChannelPart = 'meta' | 'log' | `sent:${string}` | `here${string}`

export class ChannelNames {
  readonly #name: string
  readonly #suffix: string

  /** @param name TIDEGATE_NAME
   *  @param client what is published is heard in all databases of a server: the name has the number of ours */
  constructor(name: string, client: RedisClient) {
    this.#name = name
    const database = client instanceof Redis ? (client.options.db ?? 0) : 0
    this.#suffix = database === 0 ? ':live' : `:live:${database}`
  }

  /** @param channel its `channelKey` */
  tag(channel: string): string {
    return `{${this.#name}/${encodeURIComponent(channel.toWellFormed())}}`
  }

  key(channel: string, part: ChannelPart): string {
    return `${this.tag(channel)}:${part}`
  }

  /** Under which messages and presence of a channel are published; in the slot of its keys. ASCII. */
  live(channel: string): string {
    return this.tag(channel) + this.#suffix
  }

  /** Where a node hears itself. @param channel of a Cluster: one in whose slot it is to be */
  probe(nodeId: string, channel: string | null): string {
    const tag = channel === null ? `{${this.#name}/:${nodeId}}` : this.tag(channel)
    return `${tag}:probe:${nodeId}${this.#suffix}`
  }
}

/** Lua: `tell(name, text)` publishes, by SPUBLISH where the server has it (Redis 7), in the same script as what it tells of. Names
 *  are of the slot of the script's keys. Text is one of `redis-envelope.ts`. */
export const tellLua = `
local function tell(name, text)
  local heard = redis.pcall('SPUBLISH', name, text)
  if type(heard) == 'table' then heard = redis.call('PUBLISH', name, text) end
  return heard
end
`
