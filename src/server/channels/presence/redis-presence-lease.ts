// Which nodes have entries in presence, and live: a hash in Redis, by life, of `<when heard last> <when claimed by a sweeper>`. Beside
// it, for each life, a set of the channels in which it has entries, by which they are found when it is over.
//
// Redis's own clock decides. A time from its future (it was set back, or another server is master) counts as now.
import { randomBytes } from 'node:crypto'
import type { RedisClient } from '../../redis/redis.ts'
import { defineScript, type Script } from '../../redis/redis-script.ts'

/** KEYS: the hash. ARGV: life, what this script last answered as its time or '', lease in ms, claim in ms.
 *  Answers 1 or 0: whether the life goes on; Redis's time; then each life that is over and nobody sweeps, and when it was heard. */
const renewLua = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease, claim = tonumber(ARGV[3]), tonumber(ARGV[4])
local function write(life, heard, claimed)
  redis.call('HSET', KEYS[1], life, string.format('%.0f %.0f', heard, claimed))
end
local others, newest, goesOn, ownClaimed = {}, 0, ARGV[2] == '', 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local heard, claimed, isFirst = string.match(all[i + 1], '^(%d+) (%d+)(.*)$')
  heard, claimed = tonumber(heard), tonumber(claimed)
  if all[i] == ARGV[1] then
    ownClaimed = claimed
    -- An older time than it wrote: Redis is back as it was before.
    goesOn = claimed == 0 and (ARGV[2] == '' or isFirst == '' and heard >= tonumber(ARGV[2]))
  elseif heard > now then
    redis.call('HSET', KEYS[1], all[i], string.format('%.0f 0', now) .. isFirst)
    heard, claimed = now, 0
  end
  if all[i] ~= ARGV[1] then others[#others + 1] = { all[i], heard, math.min(claimed, now) } end
  newest = math.max(newest, math.min(heard, now))
end
-- Where it does not go on, what is left of it is swept in a while, when its node has entered everything anew.
if ownClaimed == 0 then write(ARGV[1], now, 0) end
local answer = { goesOn and 1 or 0, string.format('%.0f', now) }
-- Nobody was heard for a while: Redis was away, not they.
local wasAway = now - newest >= lease / 2
for _, other in ipairs(others) do
  local life, heard, claimed = other[1], other[2], other[3]
  if wasAway and heard > 0 and claimed == 0 then write(life, now, 0)
  elseif now - heard >= lease and now - claimed >= claim then
    write(life, heard, now)
    answer[#answer + 1] = life
    answer[#answer + 1] = string.format('%.0f', heard)
  end
end
return answer`

/** Marks a life that is not in the hash: if it was before, the hash was lost.
 *  KEYS: set of the life's channels, the hash. ARGV: life, channels. */
const enterLua = `
local time = redis.call('TIME')
redis.call('SADD', KEYS[1], unpack(ARGV, 2))
redis.call('HSETNX', KEYS[2], ARGV[1], string.format('%.0f 0 first', time[1] * 1000 + math.floor(time[2] / 1000)))
return 1`

/** KEYS: the hash. ARGV: life being swept, when it was heard. */
const claimLua = `
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f', ARGV[2], time[1] * 1000 + math.floor(time[2] / 1000)))
return 1`

export interface EndedLife {
  readonly life: string
  /** By Redis's clock; 0 where its node closed. */
  readonly heardMs: number
}

export class PresenceLease {
  readonly #client: RedisClient
  readonly #name: string
  readonly #leaseMs: number
  readonly #renew: Script
  readonly #enter: Script
  readonly #claim: Script
  #life = newLife()
  #writtenMs = ''
  #hasEntered = false

  /** @param name TIDEGATE_NAME */
  constructor(client: RedisClient, name: string, leaseMs: number) {
    this.#client = client
    this.#name = name
    this.#leaseMs = leaseMs
    this.#renew = defineScript(client, renewLua)
    this.#enter = defineScript(client, enterLua)
    this.#claim = defineScript(client, claimLua)
  }

  get life(): string {
    return this.#life
  }

  /** Whether it has, or had, entries. */
  get hasEntered(): boolean {
    return this.#hasEntered
  }

  /** Another life: what is left of the last is swept when its lease is over. */
  begin(): void {
    this.#life = newLife()
    this.#writtenMs = ''
    this.#hasEntered = false
  }

  /** @returns whether the life goes on: if not, another has begun, and what was of the last must be entered anew; and lives that are
   *  over, to be swept by whoever is told of them. @throws as commands do */
  async renew(): Promise<{ readonly goesOn: boolean; readonly ended: readonly EndedLife[] }> {
    const values = [this.#life, this.#writtenMs, this.#leaseMs, this.#leaseMs]
    const [goesOn, nowMs, ...rest] = (await this.#renew([this.#nodes], values)) as [number, Buffer, ...Buffer[]]
    const ended: EndedLife[] = []
    for (let at = 0; at + 1 < rest.length; at += 2)
      ended.push({ life: String(rest[at]), heardMs: Number(rest[at + 1]) })
    this.#writtenMs = String(nowMs)
    if (goesOn !== 1) this.begin()
    return { goesOn: goesOn === 1, ended }
  }

  /** This life has, or will have, entries there: said before or together with them. */
  async enter(channels: readonly string[]): Promise<void> {
    if (channels.length > 0) this.#hasEntered = true
    for (let at = 0; at < channels.length; at += perCall)
      await this.#enter([this.#channelsOf(this.#life), this.#nodes], [this.#life, ...channels.slice(at, at + perCall)])
  }

  async leave(life: string, channels: readonly string[]): Promise<void> {
    if (channels.length > 0) await this.#client.srem(this.#channelsOf(life), ...channels)
  }

  /** Some channels in which a life has entries; none when it has none left. */
  some(life: string): Promise<string[]> {
    return this.#client.srandmember(this.#channelsOf(life), perCall)
  }

  /** Goes on being the one who sweeps it. */
  async claim({ life, heardMs }: EndedLife): Promise<void> {
    await this.#claim([this.#nodes], [life, heardMs])
  }

  async forget(life: string): Promise<void> {
    await this.#client.del(this.#channelsOf(life))
    await this.#client.hdel(this.#nodes, life)
  }

  /** Another node takes what is left of this one at once. */
  async handOver(): Promise<void> {
    await this.#client.hset(this.#nodes, this.#life, '0 0')
  }

  get #nodes(): string {
    return `{${this.#name}}:presence`
  }

  #channelsOf(life: string): string {
    return `{${this.#name}}:presence:${life}`
  }
}

const perCall = 200
const newLife = (): string => randomBytes(8).toString('hex')
