// Reads what a client asks for: URLs of SSE and long-poll, and subscribe frames, into SubscribeRequests. Pure.
import type { ClientFrame } from '../../protocol/messages.ts'
import { parseQueryPositions } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { OrderBy, SubscribeRequest } from '../subscribe/subscription.ts'
import type { MemberRequest } from './membership.ts'
import { parseStreamPosition, withoutProof } from './stream-position.ts'

export interface StreamRequest<R extends MemberRequest = MemberRequest> {
  /** In the order of the URL. Several only under `q`, or `c` for channels. */
  readonly asked: readonly R[]
  /** Under which each event says whose it is, also where there is one. Null for a table or topic in the path. */
  readonly label: 'q' | 'c' | null
  /** Where the client stands: Last-Event-ID, else `after`; null to begin fresh. */
  readonly after: string | null
  /** `wait` in milliseconds; null when left out. */
  readonly waitMs: number | null
}

type Kind = SubscribeRequest['kind']
type Operation = 'insert' | 'update' | 'delete'

/** Of a frame; in a URL they stand among the filters. */
const fields = new Set(['select', 'order', 'limit', 'events'])
const streamParameters = new Set(['after', 'wait', 'ticket', 'q'])

/** @param table the path behind `/v1/live/`, still percent-encoded; null for a stream of several queries
 *  @param lastEventId the header: an EventSource that comes back repeats its first URL, so it goes before `after`
 *  @throws FILTER_INVALID, TABLE_UNKNOWN, POSITION_INVALID, TOO_MANY_SUBSCRIPTIONS */
export function parseStreamUrl(options: {
  readonly kind: Kind
  readonly table: string | null
  readonly parameters: URLSearchParams
  readonly lastEventId: string | null
  readonly maxQueries: number
}): StreamRequest<SubscribeRequest> {
  const { kind, table, parameters, maxQueries } = options
  const after = options.lastEventId || single(parameters, 'after')
  const parts = table === null ? parameters.getAll('q') : []
  const count = table === null ? parts.length : 1
  if (count === 0) {
    throw new TidegateError(
      'FILTER_INVALID',
      `name a table, /v1/${kind}/<table>, or queries, /v1/${kind}?q=<table?...>`,
    )
  }
  if (count > maxQueries) {
    throw new TidegateError('TOO_MANY_SUBSCRIPTIONS', `the URL asks for ${count} queries; the limit is ${maxQueries}`)
  }
  const positions = after === null ? [] : parseStreamPosition(after, count)
  let queries: SubscribeRequest[]
  if (table === null) {
    const stray = [...parameters.keys()].find(name => !streamParameters.has(name))
    if (stray !== undefined) {
      throw new TidegateError('FILTER_INVALID', `${shown(stray)} stands beside q; put it inside the q it belongs to`)
    }
    queries = parts.map((part, index) => parseQuery(kind, part, positions[index] ?? null))
  } else {
    if (parameters.has('q')) throw new TidegateError('FILTER_INVALID', `q goes without a table: /v1/${kind}?q=...`)
    const own = [...parameters].filter(([name]) => !streamParameters.has(name))
    queries = [requestOf(kind, decodeTable(table), own, positions[0] ?? null)]
  }
  return { asked: queries, label: table === null ? 'q' : null, after, waitMs: waitOf(single(parameters, 'wait')) }
}

/** One `q`: `messages?room_id=eq.42`. */
function parseQuery(kind: Kind, text: string, since: SubscribeRequest['since']): SubscribeRequest {
  const mark = text.indexOf('?')
  const table = mark === -1 ? text : text.slice(0, mark)
  const parameters = [...new URLSearchParams(mark === -1 ? '' : text.slice(mark + 1))]
  const stray = parameters.find(([name]) => streamParameters.has(name))
  if (stray !== undefined) {
    throw new TidegateError('FILTER_INVALID', `${shown(stray[0])} is the whole stream's; put it beside q`)
  }
  return requestOf(kind, decodeTable(table), parameters, since)
}

/** @throws as parseStreamUrl; for the WebSocket's `filter`, which holds conditions only */
export function requestOfFrame(frame: Extract<ClientFrame, { type: 'subscribe' }>): SubscribeRequest {
  const pairs = [...new URLSearchParams(frame.filter ?? '')]
  const stray = pairs.find(([name]) => fields.has(name) || streamParameters.has(name))
  if (stray !== undefined) {
    throw new TidegateError(
      'FILTER_INVALID',
      `"${stray[0]}" in a filter is reserved; it is a field of the frame, and a column so named is c.${stray[0]}`,
    )
  }
  const positions = frame.since === undefined ? null : parseQueryPositions(withoutProof(frame.since))
  if (frame.since !== undefined && positions?.length !== 1) {
    throw new TidegateError('POSITION_INVALID', `${shown(frame.since)} is no position; leave since out`)
  }
  const request = requestOf(frame.kind, frame.table, pairs, positions?.[0] ?? null)
  const events = frame.events === undefined ? null : eventsOf(frame.kind, frame.events)
  // Written out: a spread that sets some again takes 40 bytes more, of every subscription.
  const { kind, schema, table, filters, since } = request
  const select = frame.select ?? null
  if (frame.order === undefined && frame.limit === undefined)
    return { kind, schema, table, filters, select, events, since }
  const order = frame.order === undefined ? null : parseOrder(frame.order)
  return { kind, schema, table, filters, select, events, order, limit: frame.limit ?? null, since }
}

function requestOf(
  kind: Kind,
  table: string,
  pairs: readonly [string, string][],
  since: SubscribeRequest['since'],
): SubscribeRequest {
  let select: readonly string[] | null = null
  let events: ReadonlySet<Operation> | null = null
  const seen = new Set<string>()
  let order: SubscribeRequest['order'] = null
  let limit: number | null = null
  const filters: [string, string][] = []
  for (const [name, value] of pairs) {
    const isReserved = fields.has(name) && (name !== 'events' || kind === 'changes')
    if (!isReserved) {
      filters.push([name, value])
      continue
    }
    if (seen.has(name)) throw new TidegateError('FILTER_INVALID', `${name} stands twice; write one list`)
    seen.add(name)
    if (name === 'select') select = selectOf(value)
    else if (name === 'order') order = parseOrder(value)
    else if (name === 'limit') limit = limitOf(value)
    else events = eventsOf(kind, value.split(','))
  }
  const request = { kind, ...tableOf(table), filters, select, events, since }
  return order === null && limit === null ? request : { ...request, order, limit }
}

/** The bound is the server's to know. */
function limitOf(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text)
  throw new TidegateError('FILTER_INVALID', `limit=${shown(text)} is no number of rows; leave it out for all`)
}

// No name holds a NUL: Postgres would refuse the very question whether there is such a table.
const namePart = '(?:"((?:[^"\\0]|"")+)"|([^".\\0]+))'
const tablePattern = new RegExp(`^(?:${namePart}\\.)?${namePart}$`)

/** `messages`, `sales.orders`, or quoted as in SQL where a name holds a dot: `"odd.name"`. */
function tableOf(text: string): { schema: string; table: string } {
  const match = tablePattern.exec(text)
  if (match === null) throw new TidegateError('TABLE_UNKNOWN', `${shown(text)} is no table's name`)
  const name = (quoted: string | undefined, plain: string | undefined) => quoted?.replaceAll('""', '"') ?? plain
  return { schema: name(match[1], match[2]) ?? 'public', table: name(match[3], match[4])! }
}

function decodeTable(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch (cause) {
    throw new TidegateError('TABLE_UNKNOWN', `${shown(text)} is not percent-encoded`, { cause })
  }
}

const orderTerm = /^(?:"((?:[^"]|"")+)"|([^".]+))(?:\.(asc|desc))?(?:\.(nullsfirst|nullslast))?$/

/** PostgREST's: `created_at.desc.nullslast,id`. Left out, a direction is `asc`, and NULL counts as the greatest value. */
function parseOrder(text: string): OrderBy[] {
  const terms: OrderBy[] = []
  for (let at = 0; ; at++) {
    const end = endOfName(text, at, 'order')
    const match = orderTerm.exec(text.slice(at, end).trim())
    if (match === null) throw notColumns('order', text)
    const [, quoted, plain, direction, nulls] = match
    const isDescending = direction === 'desc'
    terms.push({
      column: quoted?.replaceAll('""', '"') ?? plain!,
      direction: isDescending ? 'desc' : 'asc',
      nulls: (nulls === undefined ? isDescending : nulls === 'nullsfirst') ? 'first' : 'last',
    })
    if (terms.length > maxTerms)
      throw new TidegateError('FILTER_TOO_COMPLEX', `order has more than ${maxTerms} columns`)
    if (end === text.length) return terms
    at = end
  }
}

const maxTerms = 16

const columnName = /^(?:"(?:[^"]|"")+"|[^"]+)$/

/** `id,body`, a name with a comma or quotes as in SQL: `id,"a,b"`. `*` is every column that the role may read. */
function selectOf(text: string): string[] | null {
  if (text === '*') return null
  const columns: string[] = []
  for (let at = 0; ; at++) {
    const end = endOfName(text, at, 'select')
    const name = text.slice(at, end).trim()
    if (!columnName.test(name)) throw notColumns('select', text)
    columns.push(name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name)
    if (end === text.length) return columns
    at = end
  }
}

// By hand: an expression that skips spaces on both sides of a name tries every way to share them out, and held the event
// loop for minutes over a `select` of spaces.
/** Where the name ends that begins at `from`: at a comma outside quotes, or with the text. @throws FILTER_INVALID */
function endOfName(text: string, from: number, parameter: 'select' | 'order'): number {
  let quoted = false
  let at = from
  for (; at < text.length && (quoted || text[at] !== ','); at++) if (text[at] === '"') quoted = !quoted
  if (quoted) throw notColumns(parameter, text)
  return at
}

const notColumns = (parameter: 'select' | 'order', text: string): TidegateError =>
  new TidegateError('FILTER_INVALID', `${parameter}=${shown(text)} is no list of columns`)

function eventsOf(kind: Kind, names: readonly string[]): ReadonlySet<Operation> {
  if (kind === 'live') throw new TidegateError('FILTER_INVALID', 'events chooses among changes; a live query needs all')
  const events = new Set<Operation>()
  for (const name of names) {
    if (name !== 'insert' && name !== 'update' && name !== 'delete') {
      throw new TidegateError('FILTER_INVALID', `events=${shown(name)}: it is insert, update or delete`)
    }
    events.add(name)
  }
  return events
}

/** What a peer sent, quoted on one line and short enough for a message. */
const shown = (text: string): string => JSON.stringify(text.slice(0, 80))

function single(parameters: URLSearchParams, name: string): string | null {
  const [value, second] = parameters.getAll(name)
  if (second !== undefined) throw new TidegateError('FILTER_INVALID', `${name} stands twice`)
  return value || null
}

function waitOf(text: string | null): number | null {
  if (text === null) return null
  if (!/^\d{1,6}(\.\d{1,3})?$/.test(text)) {
    throw new TidegateError('FILTER_INVALID', `wait=${shown(text)} is no number of seconds`)
  }
  return Number(text) * 1000
}
