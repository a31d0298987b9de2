// The tickets of many nodes: issued by one, taken by another, once.
//
// Redis holds no ticket and no proof, only their digests, so that whoever reads it cannot come in with what stands there.
// Its clock decides when an unused ticket expires, the nodes' clocks may differ. When it does not answer, tickets are neither
// issued nor taken: a ticket in the memory of one node would be refused by all others.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { RedisClient } from '../redis/redis.ts'
import { defineScript, type Script } from '../redis/redis-script.ts'
import type { Principal } from '../subscribe/subscription.ts'
import {
  digestOf,
  newProof,
  newTicket,
  ownerOf,
  type Redeemed,
  refused,
  refusedOrigin,
  type Ticket,
  type TicketLimits,
  type Tickets,
  tokenExpired,
  tooMany,
  tooManyOfOwner,
} from './tickets.ts'

export interface RedisTicketsOptions {
  /** Answers or fails within its command timeout. */
  readonly redis: RedisClient
  /** TIDEGATE_NAME: every key begins with `{name}:ticket`. */
  readonly name: string
  /** Of all nodes together. */
  readonly limits: TicketLimits
  /** Milliseconds since 1970, for the tokens' expiry. */
  readonly now: () => number
}

/** A used ticket of a token without an end. */
const endlessMs = 30 * 86_400_000

// A ticket is a hash under its digest: principal, origin (JSON, so that "none" is told from any text), owner, when its token
// expires, and, once it is used, the digest of its proof. Three sorted sets count: the unused of an owner and of all, by expiry; the used, by use.

/** KEYS: the ticket, unused of its owner, unused of all. ARGV: ticketMs, expiry of the token or '', most of one owner, most
 *  of all, digest of the ticket, principal, origin. */
const issueScript = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
local outstanding = redis.call('ZCARD', KEYS[2])
if outstanding >= tonumber(ARGV[3]) then return {'owner', outstanding} end
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[4]) then return {'all'} end
local expires = now + tonumber(ARGV[1])
if ARGV[2] ~= '' then expires = math.min(expires, tonumber(ARGV[2])) end
redis.call('HSET', KEYS[1], 'principal', ARGV[6], 'origin', ARGV[7], 'owner', KEYS[2], 'until', ARGV[2])
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', expires))
for i = 2, 3 do
  redis.call('ZADD', KEYS[i], string.format('%.0f', expires), ARGV[5])
  redis.call('PEXPIRE', KEYS[i], ARGV[1])
end
return {'issued', string.format('%.0f', expires)}`

/** KEYS: the ticket, unused of all, used. ARGV: digest of the ticket, origin, digest of the proof it gets, digest of the proof
 *  presented or '', most used ones, ms for which a used one of a token without an end is kept, what keys of tickets begin with. */
const takeScript = `
local ticket = redis.call('HMGET', KEYS[1], 'principal', 'origin', 'owner', 'until', 'proof')
local principal, origin, owner, expires, proof = unpack(ticket)
if not principal then return {'unknown'} end
local time = redis.call('TIME')
-- In microseconds: the older of two uses is never taken for the newer.
local now = string.format('%.0f', time[1] * 1000000 + time[2])
local isFirst = not proof
if isFirst then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('ZREM', owner, ARGV[1])
end
if ARGV[2] ~= 'null' and ARGV[2] ~= origin then
  if isFirst then redis.call('DEL', KEYS[1]) end
  return {'origin', origin}
end
if not isFirst and proof ~= ARGV[4] then return {'used', principal} end
if isFirst then
  redis.call('HSET', KEYS[1], 'proof', ARGV[3])
  -- Past it, its client is told for a while that the token has expired.
  if expires == '' then redis.call('PEXPIRE', KEYS[1], ARGV[6])
  else redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', expires + 60000)) end
end
redis.call('ZADD', KEYS[3], now, ARGV[1])
redis.call('PEXPIRE', KEYS[3], ARGV[6])
while redis.call('ZCARD', KEYS[3]) > tonumber(ARGV[5]) do
  redis.call('DEL', ARGV[7] .. redis.call('ZPOPMIN', KEYS[3])[1])
end
return {isFirst and 'taken' or 'again', principal}`

export class RedisTickets implements Tickets {
  readonly #options: RedisTicketsOptions
  readonly #prefix: string
  readonly #issue: Script
  readonly #take: Script

  constructor(options: RedisTicketsOptions) {
    this.#options = options
    this.#prefix = `{${options.name}}:ticket:`
    this.#issue = defineScript(options.redis, issueScript)
    this.#take = defineScript(options.redis, takeScript)
  }

  async issue(principal: Principal, origin: string | null): Promise<Ticket> {
    const { limits } = this.#options
    const ticket = newTicket()
    const digest = digestOf(ticket)
    const [outcome, value] = await answerOf(
      this.#issue,
      [`${this.#prefix}${digest}`, `${this.#prefix}of:${digestOf(ownerOf(principal))}`, `${this.#prefix}unused`],
      [
        limits.ticketMs,
        principal.expiresAt ?? '',
        limits.maxTicketsPerPrincipal,
        limits.maxTickets,
        digest,
        JSON.stringify(principal),
        JSON.stringify(origin),
      ],
    )
    if (outcome === 'owner') throw tooManyOfOwner(Number(value), limits.ticketMs)
    if (outcome === 'all') throw tooMany(limits)
    return { ticket, expiresAt: Number(value) }
  }

  async redeem(ticket: string, origin: string | null, proof: string | null): Promise<Redeemed> {
    const digest = digestOf(ticket)
    const fresh = newProof()
    const [outcome, value = ''] = await answerOf(
      this.#take,
      [`${this.#prefix}${digest}`, `${this.#prefix}unused`, `${this.#prefix}used`],
      [
        digest,
        JSON.stringify(origin),
        digestOf(fresh),
        proof === null ? '' : digestOf(proof),
        this.#options.limits.maxTickets,
        endlessMs,
        this.#prefix,
      ],
    )
    if (outcome === 'unknown') throw refused('it is unknown or expired')
    if (outcome === 'origin') throw refusedOrigin(JSON.parse(value) as string | null)
    const principal = JSON.parse(value) as Principal
    if (principal.expiresAt !== null && principal.expiresAt <= this.#options.now()) throw tokenExpired()
    if (outcome === 'used') throw refused('it was used already')
    return { principal, proof: outcome === 'taken' || proof === null ? fresh : proof }
  }
}

/** What the scripts above return. @throws UNAVAILABLE */
async function answerOf(
  script: Script,
  keys: readonly string[],
  values: readonly (string | number)[],
): Promise<[outcome: string, value?: string]> {
  try {
    return ((await script(keys, values)) as (Buffer | number)[]).map(String) as [string, string?]
  } catch (cause) {
    throw new TidegateError('UNAVAILABLE', 'Redis, which holds the tickets of all nodes, does not answer', { cause })
  }
}
