// What the payload of a join asks for. Pure.
//
// Nothing in it is refused: what is odd counts as left out, as it does at Supabase. But never so that the client gets more, or says
// more aloud, than it asked for: a `private` that is no boolean is private; a table or filter that is no text is one that cannot be.
import { hash } from 'node:crypto'
import type { Json } from '../../../protocol/messages.ts'
import type { Binding, Incoming, JoinConfig } from './wire.ts'

/** Entries of `postgres_changes`. A join of more is refused before they are looked at: each is repeated in the answer. */
export const maxBindings = 2000

/** Messages that a join may have replayed. */
const maxReplayed = 25

type JsonMap = { readonly [key: string]: Json }

/** @param topic with its prefix: `realtime:room:1`
 *  @param payload as parseIncoming gave it */
export function joinConfigOf(topic: string, payload: Json): JoinConfig {
  const join = mapOf(payload)
  const config = mapOf(join.config)
  const broadcast = mapOf(config.broadcast)
  const presence = mapOf(config.presence)
  const isLegacy = !Object.hasOwn(join, 'config')
  return {
    isPrivate: booleanOf(config.private) ?? !isAbsent(config.private),
    self: booleanOf(broadcast.self) ?? false,
    ack: booleanOf(broadcast.ack) ?? false,
    replay: replayOf(broadcast.replay),
    replicationReady: booleanOf(broadcast.replication_ready) ?? false,
    presenceKey: presenceKeyOf(presence.key),
    presence: booleanOf(presence.enabled) ?? false,
    bindings: bindingsOf(isLegacy ? legacyEntries(topic) : config.postgres_changes),
    accessToken: tokenOf(join.user_token) ?? tokenOf(join.access_token),
    isLegacy,
  }
}

/** @param payload of a join */
export function asksTooMuch(payload: Json): boolean {
  const entries = mapOf(mapOf(payload).config).postgres_changes
  return Array.isArray(entries) && entries.length > maxBindings
}

function mapOf(value: Json | undefined): JsonMap {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : {}
}

const isAbsent = (value: Json | undefined): boolean => value === undefined || value === null

function booleanOf(value: Json | undefined): boolean | null {
  if (typeof value === 'boolean') return value
  if (typeof value !== 'string') return null
  const word = value.toLowerCase()
  return word === 'true' ? true : word === 'false' ? false : null
}

function presenceKeyOf(key: Json | undefined): string {
  return typeof key === 'string' || typeof key === 'number' ? String(key) : ''
}

// A key of Supabase's new kind stands where a token would, and says no more than the connection does.
const tokenOf = (value: Json | undefined): string | null =>
  typeof value === 'string' && value !== '' && !value.startsWith('sb_') ? value : null

function replayOf(replay: Json | undefined): JoinConfig['replay'] {
  if (isAbsent(replay)) return null
  const { since, limit } = mapOf(replay)
  const asked = isAbsent(limit) ? maxReplayed : limit
  if (!isInteger(since) || !isInteger(asked) || Number.isNaN(new Date(since).getTime())) return 'invalid'
  return { sinceMs: since, limit: Math.max(1, Math.min(asked, maxReplayed)) }
}

const isInteger = (value: Json | undefined): value is number => Number.isSafeInteger(value)

/** `realtime:schema:table:filter`, of which all but the schema may be left out. */
function legacyEntries(topic: string): Json {
  const [, schema = '', table, ...filter] = topic.split(':')
  if (schema === '') return []
  return [{ schema, ...(table ? { table } : {}), ...(filter.length === 0 ? {} : { filter: filter.join(':') }) }]
}

const noBindings: readonly Binding[] = []

/** One for each entry but null, in their order: the client compares the reply with what it sent place by place. */
function bindingsOf(entries: Json | undefined): readonly Binding[] {
  if (!Array.isArray(entries)) return noBindings
  const asked = JSON.stringify(entries)
  const known = bindingsKnown.get(asked)
  if (known !== undefined) return known
  const nextId = bindingIds()
  const bindings = entries.flatMap(entry => (entry === null ? [] : [bindingOf(mapOf(entry), nextId)]))
  if (asked.length > maxKnownChars) return bindings
  if (bindingsKnown.size >= maxKnown) bindingsKnown.clear()
  bindingsKnown.set(asked, bindings)
  return bindings
}

/** By the entries as JSON text: an application's pages ask for the same, and thousands of channels then share it. Past so many all are made
 *  anew. */
const bindingsKnown = new Map<string, readonly Binding[]>()
const maxKnown = 1000
const maxKnownChars = 2000

function bindingOf(entry: JsonMap, nextId: (asked: string) => number): Binding {
  const asked = {
    event: eventOf(entry.event),
    ...tableOf(entry),
    filter: filterOf(entry.filter),
    select: selectOf(entry),
  }
  const id = nextId(JSON.stringify(asked))
  return { id, echo: JSON.stringify({ id, ...echoOf(entry) }), ...asked }
}

function echoOf({ event, schema, table, filter, select }: JsonMap): object {
  return { event, schema, table, filter, select }
}

function eventOf(event: Json | undefined): Binding['event'] {
  const word = typeof event === 'string' ? event.toUpperCase() : ''
  return word === 'INSERT' || word === 'UPDATE' || word === 'DELETE' ? word : '*'
}

/** A schema alone means all its tables, a table alone is one of `public`, and neither is no table: both are empty then. */
function tableOf(entry: JsonMap): { schema: string; table: string } {
  const schema = wordOf(entry.schema)
  const table = wordOf(entry.table)
  if (schema === null && table === null) return { schema: '', table: '' }
  return { schema: schema ?? 'public', table: table ?? '*' }
}

function filterOf(value: Json | undefined): string | null {
  const filter = wordOf(value)
  return filter?.trim() ? filter : null
}

function selectOf({ select }: JsonMap): string[] | null {
  if (typeof select === 'string') return [select]
  if (!Array.isArray(select)) return null
  const columns = select.filter(column => typeof column === 'string')
  return columns.length === 0 ? null : columns
}

function wordOf(value: Json | undefined): string | null {
  if (value === undefined || value === null) return null
  return typeof value === 'string' ? value : JSON.stringify(value)
}

/** Ids of the bindings of one join, in their order. 27 bits of a hash of what a binding asks for. No two are the same: what is asked
 *  for twice has two, so that the client, which looks for its callbacks by id, calls each once, and two askings whose hashes
 *  meet have too. Hashed anew, not counted up: who seeks askings that meet would make it try them all. */
function bindingIds(): (asked: string) => number {
  const taken = new Set([0])
  const attempts = new Map<string, number>()
  return asked => {
    let attempt = attempts.get(asked) ?? 0
    let id = 0
    while (taken.has(id)) id = hash('sha256', `${attempt++} ${asked}`, 'buffer').readUInt32BE() >>> 5
    attempts.set(asked, attempt)
    taken.add(id)
    return id
  }
}

/** Of a push `access_token`; null: it names none. */
export function tokenIn(payload: Incoming['payload']): string | null {
  const isObject = typeof payload === 'object' && payload !== null && 'access_token' in payload
  const token = isObject ? (payload as Record<string, unknown>).access_token : null
  return typeof token === 'string' && token !== '' ? token : null
}
