// Compares what a subscriber was told with what Postgres showed.
import type { Follower } from './follower.ts'
import { byKey, type Moment, type Truth } from './truth.ts'

/** @returns what is wrong, or null; the first word is its kind */
export function judge(follower: Follower, truth: Truth): string | null {
  // All that is drawn is judged in the stream, but for this.
  if (follower.asked !== null && !follower.asked.includes('in language plpgsql')) return `asked: ${follower.asked}`
  if (follower.refusal !== null) return `refused: ${follower.refusal}`
  if (follower.failure !== null) return `told: ${follower.failure}`
  const causes = follower.asked === null ? ['INPUTS_CHANGED'] : ['INPUTS_CHANGED', 'ASKED_FORGOTTEN']
  const strange = follower.resyncs.find(code => !causes.includes(code))
  if (strange !== undefined) return `resync: ${strange} without a cause`
  if (follower.subscriber.kind === 'live') return judgeRows(follower, truth)
  return follower.asked === null ? judgeEvents(follower, truth) : judgeAnswers(follower, truth)
}

/** What Postgres was asked for is what it showed at the position told, whatever happened since the answer before. */
function judgeAnswers(follower: Follower, truth: Truth): string | null {
  const { table } = follower
  const query = truth.queryOf(follower.subscriber)
  for (const { lsn, event } of follower.received) {
    if (event.key === undefined) continue
    const place = truth.at(lsn)
    const key = JSON.stringify(table.key.map(column => event.key![column]))
    const shown = byKey(table, truth.moments[place]!.rows[query]!).get(key)
    const told = event.new === undefined ? undefined : JSON.stringify(event.new)
    if (told !== shown && !isTorn(follower, truth, place))
      return `leak: after transaction ${place} ${event.op} ${key} ${told ?? ''} was told, and ${shown ?? 'nothing'} was shown`
  }
  return null
}

/** Postgres shows a truncated table as empty to snapshots of before too: what it answers while it waits for a truncation is what
 *  no moment had. */
const isTorn = (follower: Follower, truth: Truth, place: number): boolean =>
  follower.asked !== null && truth.moments.slice(place + 1).some(({ truncated }) => truncated.size > 0)

/** At every position that it was told, it held what the SELECT returned there. */
function judgeRows(follower: Follower, truth: Truth): string | null {
  const query = truth.queryOf(follower.subscriber)
  for (const { lsn, rows, how } of follower.held) {
    const place = truth.at(lsn)
    const expected = truth.moments[place]!.rows[query]!
    if (rows !== expected && !isTorn(follower, truth, place))
      return `rows: after transaction ${place} (${lsn.toString(16)}, by ${how}) ${difference(rows, expected)}`
  }
  for (const { from, to, rows } of follower.shown) {
    const moments = truth.moments.slice(truth.at(from), truth.at(to) + 1)
    const readable = new Set(moments.flatMap(moment => moment.rows[query]!.split('\n')))
    const stranger = rows.find(row => !readable.has(row))
    if (stranger !== undefined)
      return `leak: a snapshot showed ${stranger}, which its reader could not read while it came`
  }
  return null
}

const difference = (held: string, expected: string): string => {
  const [here, there] = [held, expected].map(text => text.split('\n').filter(line => line !== ''))
  const missing = there!.filter(line => !here!.includes(line))
  const surplus = here!.filter(line => !there!.includes(line))
  return `lacks [${missing.join(', ')}], has beyond [${surplus.join(', ')}]`
}

export interface Owed {
  readonly op: string
  readonly new?: string
  readonly old?: string
}

/** Each row's first old and last new version of a commit, as far as its reader could see them: once, in order. */
function judgeEvents(follower: Follower, truth: Truth): string | null {
  const { table } = follower
  const query = truth.queryOf(follower.subscriber)
  const received = new Map<number, Map<string, Owed>>()
  for (const { lsn, event } of follower.received) {
    const place = truth.at(lsn)
    const key = event.key === undefined ? '' : JSON.stringify(table.key.map(column => event.key![column]))
    const text = (row: object | undefined) => (row === undefined ? {} : JSON.stringify(row))
    const told: Owed = {
      op: event.op,
      ...(event.new === undefined ? {} : { new: text(event.new) as string }),
      ...(event.old === undefined ? {} : { old: text(event.old) as string }),
    }
    if (truth.moments[place]!.lsn !== lsn)
      return `event: ${say(place, key, told)}, of a commit that is not one of the history`
    const events = received.get(place) ?? new Map<string, Owed>()
    if (events.has(key)) return `event: ${say(place, key, told)} comes after ${say(place, key, events.get(key)!)}`
    received.set(place, events.set(key, told))
  }
  for (let place = 1; place < truth.moments.length; place++) {
    const { lsn } = truth.moments[place]!
    const owed = owedAt(truth, query, place)
    const told = received.get(place) ?? new Map<string, Owed>()
    for (const [key, event] of told) {
      const due = owed.get(key)
      if (due === undefined) return `leak: ${say(place, key, event)} was told, and nothing was due`
      if (JSON.stringify(due) !== JSON.stringify(event))
        return `event: ${say(place, key, event)} was told, ${say(place, key, due)} was due`
    }
    if (!follower.owed.some(({ from, to }) => lsn > from && lsn <= to)) continue
    for (const [key, event] of owed)
      if (!told.has(key) && !isExcused(follower, truth, query, place, key, event))
        return `event: ${say(place, key, event)} was due, and did not come`
  }
  return null
}

const say = (place: number, key: string, event: Owed): string =>
  `transaction ${place}: ${event.op} ${key} ${event.old ?? ''} -> ${event.new ?? ''}`

/** What changed at a commit, as far as its reader could see it: by key, the first old and the last new version. */
export function owedAt(truth: Truth, query: number, place: number): Map<string, Owed> {
  const { table } = truth.queries[query]!
  const [was, is] = [truth.moments[place - 1]!, truth.moments[place]!]
  const [wrote, writes] = [was.writers.get(table.name)!, is.writers.get(table.name)!]
  const [showed, shows] = [byKey(table, was.rows[query]!), byKey(table, is.rows[query]!)]
  const owed = new Map<string, Owed>()
  const isTruncated = is.truncated.has(table.name)
  if (isTruncated) owed.set('', { op: 'truncate' })
  for (const key of new Set([...wrote.keys(), ...writes.keys()])) {
    if (wrote.get(key) === writes.get(key)) continue
    const [before, after] = [isTruncated ? undefined : showed.get(key), shows.get(key)]
    if (before === undefined && after === undefined) continue
    const op = before === undefined ? 'insert' : after === undefined ? 'delete' : 'update'
    owed.set(key, {
      op,
      ...(after === undefined ? {} : { new: after }),
      ...(before === undefined ? {} : { old: before }),
    })
  }
  return owed
}

/** What comes late is owed only if its reader may still see it: a deleted row by the memberships of now too. That is known of a
 *  version that is still shown, and of any while nothing else was written. */
function isExcused(follower: Follower, truth: Truth, query: number, place: number, key: string, event: Owed): boolean {
  const last = lastWhenSent(follower, truth, place)
  if (last === null) return false
  const since = truth.moments.slice(event.new === undefined ? place : place + 1, last + 1)
  if (since.every(({ statements }) => statements.every(([, sql]) => truth.writesOnly(follower.table, sql))))
    return false
  // A column that is not shown may have changed, and decide.
  const writer = (moment: Moment) => moment.writers.get(follower.table.name)!.get(key)
  const wrote = writer(truth.moments[place]!)
  const isShown = (moment: Moment) => moment.rows[query]!.split('\n').includes(event.new!)
  return event.new === undefined || !since.every(moment => writer(moment) === wrote && isShown(moment))
}

/** The number of the moment at which an event was sent at the latest; null: at once. Whoever comes to reach more by a grant, gets
 *  what follows when the memberships beyond it have been read. */
function lastWhenSent(follower: Follower, truth: Truth, place: number): number | null {
  const { lsn, statements } = truth.moments[place]!
  const range = follower.behind.find(({ from, to }) => lsn > from && lsn <= to)
  if (range !== undefined) return truth.at(range.to)
  if (truth.pace === 'burst') return place + burstMoments
  const mayGrant = statements.some(([, sql]) => /INSERT|UPDATE/.test(sql) && !truth.writesOnly(follower.table, sql))
  return mayGrant ? place : null
}

/** Transactions that follow without a pause while something is read. */
const burstMoments = 6
