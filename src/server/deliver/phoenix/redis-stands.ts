// The stands of many nodes: kept by one, taken on another, once.
//
// Redis's clock counts for all. Where it does not answer, nothing is kept and nothing found: the client begins anew, as with
// Supabase, and is not kept waiting for longer than one command may take.
import type { Log } from '../../log/log.ts'
import { repeated } from '../../log/log-repeated.ts'
import type { RedisClient } from '../../redis/redis.ts'
import { defineScript, type Script } from '../../redis/redis-script.ts'
import { keepable, refOf, type Stand, type StandLimits, type Stands, standLimits } from './stands.ts'

export interface RedisStandsOptions {
  /** Answers or fails within its command timeout. */
  readonly redis: RedisClient
  /** TIDEGATE_NAME: every key begins with `{name}:stand`. */
  readonly name: string
  readonly log: Log
  /** Of all nodes together. Left out: `standLimits`. */
  readonly limits?: StandLimits
}

/** Stands in one command: a node that stops keeps those of all its channels at once. */
const batchSize = 50
/** Stands that wait for the command before; past it they are dropped. */
const maxWaiting = 50_000

// What is kept of an owner is a JSON list under its digest: `r` the last ref, `h` when it was heard, `k` when it was kept, `n` of how
// many clients, `p` the positions. A sorted set has all owners by when one was kept of them last.

/** As `added`, `taken`, `choose` and `earliest` of stands.ts do it: one test holds both to the same answers. */
const common = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function load(key, keepMs)
  local kept = {}
  for _, one in ipairs(cjson.decode(redis.call('GET', key) or '[]')) do
    if now - one.k < keepMs then table.insert(kept, one) end
  end
  return kept
end

local function store(key, kept, keepMs)
  if #kept == 0 then return redis.call('DEL', key) end
  local untilMs = kept[#kept].k + keepMs - now
  return redis.call('SET', key, cjson.encode(kept), 'PX', string.format('%.0f', untilMs))
end

local function order(position)
  local epoch, lsn, rest = string.match(position, '^(%x+)%-(%x+)(.*)$')
  local index = string.match(rest, '^%-(%x+)') or 'ffffffff'
  return epoch, string.rep('0', 16 - #lsn) .. lsn .. string.rep('0', 8 - #index) .. index
end

local function lower(found, positions)
  for name, position in pairs(positions) do
    local before = found[name]
    if before == nil then
      found[name] = position
    else
      local epoch, place = order(position)
      local epochBefore, placeBefore = order(before)
      if epoch == epochBefore and place < placeBefore then found[name] = position end
    end
  end
end
`

/** KEYS: all owners, then each stand's owner. ARGV: keepMs, most of one owner, most owners, togetherMs, what keys of owners begin
 *  with; then of each stand its owner, last ref, silence, positions. */
const keepScript = `${common}
local keepMs, maxStands, maxOwners, togetherMs = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
for i = 2, #KEYS do
  local at = 6 + (i - 2) * 4
  local kept = load(KEYS[i], keepMs)
  local fresh = {r = tonumber(ARGV[at + 1]), h = now - tonumber(ARGV[at + 2]), k = now, n = 1, p = cjson.decode(ARGV[at + 3])}
  if #kept < maxStands then
    table.insert(kept, fresh)
  else
    local nearest = 1
    for n = 2, #kept do
      if math.abs(kept[n].h - fresh.h) < math.abs(kept[nearest].h - fresh.h) then nearest = n end
    end
    if math.abs(kept[nearest].h - fresh.h) > togetherMs then
      table.remove(kept, 1)
      table.insert(kept, fresh)
    else
      local both = table.remove(kept, nearest)
      both.r = math.min(both.r, fresh.r)
      both.h = math.min(both.h, fresh.h)
      both.k = now
      both.n = both.n + 1
      lower(both.p, fresh.p)
      table.insert(kept, both)
    end
  end
  store(KEYS[i], kept, keepMs)
  redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[at])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - keepMs))
while redis.call('ZCARD', KEYS[1]) > maxOwners do
  redis.call('DEL', ARGV[5] .. redis.call('ZPOPMIN', KEYS[1])[1])
end`

/** KEYS: the owner's, all owners. ARGV: keepMs, togetherMs, ref, owner. */
const takeScript = `${common}
local keepMs, togetherMs, ref = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local kept = load(KEYS[1], keepMs)
local own = nil
for n, one in ipairs(kept) do
  if one.r < ref and (own == nil or one.r > kept[own].r) then own = n end
end
if own == nil then return false end
local function isAlike(one)
  return one.r < ref and (one.r == kept[own].r or math.abs(one.h - kept[own].h) <= togetherMs)
end
local found, alike = {}, {}
for n, one in ipairs(kept) do
  if isAlike(one) then
    lower(found, one.p)
    table.insert(alike, one)
  end
end
for _, one in ipairs(alike) do one.p = found end
kept[own].n = kept[own].n - 1
if kept[own].n == 0 then table.remove(kept, own) end
store(KEYS[1], kept, keepMs)
if #kept == 0 then redis.call('ZREM', KEYS[2], ARGV[4]) end
return cjson.encode(found)`

interface Waiting {
  readonly stand: Stand
  readonly json: string
}

export class RedisStands implements Stands {
  readonly #log: Log
  readonly #limits: StandLimits
  readonly #prefix: string
  readonly #owners: string
  readonly #keep: Script
  readonly #take: Script
  /** At most `maxWaiting`. */
  #waiting: Waiting[] = []
  /** Until nothing waits. */
  #keeping: Promise<void> | null = null
  #isAway = false

  constructor({ redis, name, log, limits = standLimits }: RedisStandsOptions) {
    this.#log = log
    this.#limits = limits
    this.#prefix = `{${name}}:stand:`
    this.#owners = `{${name}}:stands`
    this.#keep = defineScript(redis, keepScript)
    this.#take = defineScript(redis, takeScript)
  }

  keep(stand: Stand): void {
    const json = keepable(stand, this.#limits)
    if (json === null || this.#waiting.length >= maxWaiting) return
    this.#waiting.push({ stand, json })
    this.#keeping ??= this.#keepAll()
  }

  async take(owner: string, ref: string | null): Promise<Stand['positions'] | null> {
    const first = refOf(ref)
    if (first === null) return null
    // On its way to Redis still.
    if (this.#waiting.some(({ stand }) => stand.owner === owner)) {
      await this.#keeping
      if (this.#isAway) return null
    }
    const { keepMs, togetherMs } = this.#limits
    const json = await this.#tried(
      this.#take([`${this.#prefix}${owner}`, this.#owners], [keepMs, togetherMs, first, owner]),
    )
    return json === null ? null : (JSON.parse(String(json)) as Stand['positions'])
  }

  async close(): Promise<void> {
    await this.#keeping
  }

  async #keepAll(): Promise<void> {
    // Whoever breaks in the same moment goes along.
    await Promise.resolve()
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.slice(0, batchSize)
      const isKept = (await this.#tried(this.#keepSome(batch).then(() => true))) ?? false
      // Each would wait as long for a Redis that is away.
      this.#waiting = isKept ? this.#waiting.slice(batch.length) : []
    }
    this.#keeping = null
  }

  #keepSome(batch: readonly Waiting[]): Promise<unknown> {
    const { keepMs, maxStands, maxOwners, togetherMs } = this.#limits
    return this.#keep(
      [this.#owners, ...batch.map(({ stand }) => `${this.#prefix}${stand.owner}`)],
      [
        keepMs,
        maxStands,
        maxOwners,
        togetherMs,
        this.#prefix,
        ...batch.flatMap(({ stand: { owner, lastRef, silentMs = 0 }, json }) => [
          owner,
          lastRef,
          Math.round(silentMs),
          json,
        ]),
      ],
    )
  }

  /** @returns null where it failed */
  async #tried<T>(asked: Promise<T>): Promise<T | null> {
    try {
      const answer = await asked
      this.#isAway = false
      return answer
    } catch (error) {
      const text = 'Redis does not keep where Supabase clients stood: those that come back now begin anew'
      if (this.#isAway) this.#log.debug({ err: error }, text)
      else repeated(this.#log).warn({ err: error }, text)
      this.#isAway = true
      return null
    }
  }
}
