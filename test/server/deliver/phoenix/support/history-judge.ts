// Whether what a peer of a generated history was told is what it was owed: compared with the SELECT of its user after each commit.
import type { JsonRow } from '../../../../../src/protocol/messages.ts'
import type { Subscriber, Table } from '../../../../histories/history.ts'
import { type Owed, owedAt } from '../../../../histories/judge.ts'
import { byKey, keyOf, type Truth } from '../../../../histories/truth.ts'
import type { AskedBinding, HeardEvent, HistoryPeer, Visit } from './history-peer.ts'

export interface JudgeOptions {
  readonly truth: Truth
  readonly tables: readonly Table[]
  /** Of which an old row is its key alone. */
  readonly keyOnly: ReadonlySet<string>
  /** One for each binding, table and user. */
  readonly subscriberOf: (binding: AskedBinding, table: string, user: number) => Subscriber
  /** Each user's own memberships: when they change, what comes late is owed no more. */
  readonly membershipsOf: (user: number) => Subscriber
  /** Between them each commit took place, by the clock; milliseconds. */
  readonly spans: readonly (readonly [from: number, to: number])[]
  /** What was sent so long before a break may come twice. */
  readonly repeatedMs: () => number
}

/** The last of a series. */
interface Told {
  readonly place: number
  readonly seq: number
  readonly say: string
}

/** What one binding is to be told of one row at one commit. */
interface Due {
  readonly type: HeardEvent['type']
  readonly record: string | null
  readonly old: string | null
  /** What would be told of a row whose key is new may be told to UPDATE, if another row became it. */
  readonly isOptional: boolean
}

export class HistoryJudge {
  readonly #options: JudgeOptions
  readonly #owed = new Map<string, ReadonlyMap<string, Owed>>()
  compared = 0
  readonly repeated = new Set<string>()
  readonly excused = new Set<string>()

  constructor(options: JudgeOptions) {
    this.#options = options
  }

  /** @param upTo the moment up to which it should have been told everything; null: it is away, or slow
   *  @returns what is wrong; null: nothing */
  judge(peer: HistoryPeer, upTo: number | null): string | null {
    if (peer.faults.length > 0) return peer.faults[0]!
    const seen = new Map<string, HeardEvent>()
    const wrong = this.#judgeHeard(peer, seen)
    if (wrong !== null || upTo === null) return wrong
    const excused = new Set<string>()
    return this.#missing(peer, seen, upTo, excused) ?? this.#held(peer, upTo, excused)
  }

  #judgeHeard(peer: HistoryPeer, seen: Map<string, HeardEvent>): string | null {
    const last = new Map<string, Told>()
    for (const event of peer.heard) {
      const place = this.#placeOf(event)
      if (place === null) return `nothing was committed at the time of ${say(event)}`
      const visit = peer.visits[event.visit]!
      if (visit.brokenMs === null && place <= visit.servedBefore)
        return `${say(event)} of commit ${place} is older than the visit, which began after ${visit.servedBefore}`
      const table = this.#table(event.table)
      const key = keyOf(table, (event.record ?? event.old)!)
      for (const of of event.bindings) {
        const binding = peer.bindings[of]!
        const dues = usersAt(peer, place).map(user => this.#dueAt(binding, event.table, user, place).get(key))
        if (!dues.some(due => due !== undefined && this.#isOf(event, due, table)))
          return `[P2] binding ${of} was told ${say(event)} at commit ${place}, and due was ${JSON.stringify(dues)}`
        const stale = this.#stale(peer, binding, event, place, key)
        if (stale) return `[P2] ${say(event)} of commit ${place} was told to who could not see it when it came back`
        const name = nameOf(of, event.table, place, key)
        const first = seen.get(name)
        if (first === undefined) seen.set(name, event)
        else {
          const { brokenMs } = visit
          if (first.visit === event.visit || brokenMs === null || brokenMs < first.atMs)
            return `[P4] ${say(event)} came twice without a break`
          if (brokenMs - first.atMs > this.#options.repeatedMs())
            return `[P4] ${say(event)} came again, ${Math.round(brokenMs - first.atMs)} ms before the break it had come`
          this.repeated.add(`${peer.name} ${name}`)
          seen.set(name, event)
        }
      }
      const wrong = this.#disorder(event, place, visit, last)
      if (wrong !== null) return wrong
    }
    return null
  }

  /** Each table in order; all tables of a channel, but for what it missed or what came while it joined, which is told table by table. */
  #disorder(event: HeardEvent, place: number, visit: Visit, last: Map<string, Told>): string | null {
    const seq = event.type === 'DELETE' ? -1 : Number(event.record!.seq)
    for (const name of [
      `${event.visit} ${event.table} ${event.bindings}`,
      ...(visit.catchesUp || place <= visit.from ? [] : [`${event.visit}`]),
    ]) {
      const before = last.get(name) ?? { place: -1, seq: -1, say: '' }
      if (place < before.place)
        return `[P5] ${say(event)} of commit ${place} came after ${before.say} of ${before.place}`
      const isSame = place === before.place
      if (isSame && seq !== -1 && seq < before.seq)
        return `[P5] ${say(event)} came after ${before.say}, which was written later in commit ${place}`
      last.set(name, { place, seq: isSame ? Math.max(seq, before.seq) : seq, say: say(event) })
    }
    return null
  }

  #missing(
    peer: HistoryPeer,
    seen: ReadonlyMap<string, HeardEvent>,
    upTo: number,
    excused: Set<string>,
  ): string | null {
    for (const { from, to } of this.#owedRanges(peer, upTo))
      for (let place = from + 1; place <= to; place++)
        for (const [of, binding] of peer.bindings.entries())
          for (const table of this.#tablesOf(binding)) {
            const [mine, other] = usersAt(peer, place).map(user => this.#dueAt(binding, table, user, place))
            for (const [key, due] of mine!) {
              if (due.isOptional || seen.has(nameOf(of, table, place, key))) continue
              if (other !== undefined && JSON.stringify(other.get(key)) !== JSON.stringify(due)) continue
              if (this.#isExcused(peer, binding, table, { place, key, due, upTo })) {
                this.excused.add(`${peer.name} ${of} ${table} ${key} ${place}`)
                excused.add(`${of} ${table} ${key}`)
              } else
                return `[P4] binding ${of} was owed ${due.type} ${table} ${key} ${due.record} of commit ${place}, and it did not come`
            }
          }
    return null
  }

  /** Its rows, by applying what it was told to what it read when it had joined. */
  #held(peer: HistoryPeer, now: number, excused: ReadonlySet<string>): string | null {
    const { truth } = this.#options
    const begun = this.#owedRanges(peer, now).at(-1)
    if (begun === undefined || peer.state !== 'in') return null
    const swap = peer.swaps.at(-1)
    // Whoever became another reads anew.
    const base = Math.min(now, Math.max(begun.from, swap === undefined ? 0 : (swap.to ?? now)))
    for (const [of, binding] of peer.bindings.entries()) {
      if (binding.event !== '*') continue
      for (const name of this.#tablesOf(binding)) {
        const table = this.#table(name)
        const query = truth.queryOf(this.#options.subscriberOf(binding, name, peer.user))
        const held = new Map(byKey(table, truth.moments[base]!.rows[query]!))
        for (const event of peer.heard) {
          if (event.visit < begun.visit || event.table !== name || !event.bindings.includes(of)) continue
          if (this.#placeOf(event)! <= base) continue
          const key = keyOf(table, (event.record ?? event.old)!)
          if (event.type === 'DELETE') held.delete(key)
          else held.set(key, JSON.stringify(event.record))
        }
        const expected = byKey(table, truth.moments[now]!.rows[query]!)
        const silent = this.#movedSilently(query, base, now)
        for (const key of new Set([...held.keys(), ...expected.keys()])) {
          if (silent.has(key) || excused.has(`${of} ${name} ${key}`)) continue
          this.compared += 1
          if (held.get(key) !== expected.get(key))
            return `[P1] ${peer.name} holds ${held.get(key)} of ${name}, and its SELECT shows ${expected.get(key)} at ${now}`
        }
      }
    }
    return null
  }

  /** Keys of rows that a grant or a revocation moved last: they were not written, and no event says so. */
  #movedSilently(query: number, from: number, to: number): ReadonlySet<string> {
    const { truth } = this.#options
    const { table } = truth.queries[query]!
    const silent = new Set<string>()
    for (let place = from + 1; place <= to; place++) {
      const [was, is] = [truth.moments[place - 1]!, truth.moments[place]!]
      const owed = this.#owedAt(query, place)
      for (const key of owed.keys()) silent.delete(key)
      if (was.rows[query] === is.rows[query]) continue
      const [showed, shows] = [byKey(table, was.rows[query]!), byKey(table, is.rows[query]!)]
      for (const key of new Set([...showed.keys(), ...shows.keys()]))
        if (showed.get(key) !== shows.get(key) && !owed.has(key)) silent.add(key)
    }
    return silent
  }

  /** From without, to with. @returns with the first visit of each */
  #owedRanges(peer: HistoryPeer, upTo: number): { readonly from: number; to: number; readonly visit: number }[] {
    const ranges: { readonly from: number; to: number; readonly visit: number }[] = []
    for (const [visit, { from, brokenMs, isAnew }] of peer.visits.entries()) {
      const to = peer.ended.find(end => end.visit === visit)?.at ?? upTo
      const last = ranges.at(-1)
      if (brokenMs !== null && !isAnew && last !== undefined) last.to = to
      else ranges.push({ from, to, visit })
    }
    return ranges
  }

  /** What comes late is owed only to who may still see it. */
  #isExcused(
    peer: HistoryPeer,
    binding: AskedBinding,
    name: string,
    { place, key, due, upTo }: { place: number; key: string; due: Due; upTo: number },
  ): boolean {
    const { truth, membershipsOf, subscriberOf } = this.#options
    const until = peer.settled.find(at => at >= place) ?? upTo
    const shown = truth.queryOf(subscriberOf(binding, name, usersAt(peer, place)[0]!))
    const writer = (at: number) => truth.moments[at]!.writers.get(name)!.get(key)
    let hasFlipped = false
    let isShown = due.record !== null
    const isLate = peer.visits.some(visit => visit.catchesUp && visit.servedBefore < place && place <= visit.from)
    // What went is judged by the memberships after the commit too, if it comes late.
    const first = due.record === null && (isLate || until > place) ? place : place + 1
    for (let at = first; at <= until; at++) {
      const [was, is] = [truth.moments[at - 1]!, truth.moments[at]!]
      hasFlipped ||= usersAt(peer, at).some(user => {
        const query = truth.queryOf(membershipsOf(user))
        return was.rows[query] !== is.rows[query]
      })
      isShown &&= writer(at) === writer(place) && byKey(this.#table(name), is.rows[shown]!).has(key)
    }
    return hasFlipped && !isShown
  }

  /** A version that is still the row's, and that its reader could not see any more at any time since it asked to come back. */
  #stale(peer: HistoryPeer, binding: AskedBinding, event: HeardEvent, place: number, key: string): boolean {
    const { truth, subscriberOf } = this.#options
    const { servedBefore, brokenMs, from } = peer.visits[event.visit]!
    if (brokenMs === null || event.type === 'DELETE' || place > servedBefore) return false
    const writer = (at: number) => truth.moments[at]!.writers.get(event.table)?.get(key)
    const until = Math.min(from, truth.moments.length - 1)
    for (let at = servedBefore; at <= until; at++) {
      if (writer(place) !== writer(at)) return false
      for (const user of usersAt(peer, at)) {
        const query = truth.queryOf(subscriberOf(binding, event.table, user))
        if (byKey(this.#table(event.table), truth.moments[at]!.rows[query]!).has(key)) return false
      }
    }
    return true
  }

  #dueAt(binding: AskedBinding, name: string, user: number, place: number): ReadonlyMap<string, Due> {
    const { truth } = this.#options
    const query = truth.queryOf(this.#options.subscriberOf(binding, name, user))
    const dues = new Map<string, Due>()
    const before = truth.moments[place - 1]?.writers.get(name)
    const movesKeys = truth.moments[place]!.statements.some(([kind]) => kind === 'key')
    for (const [key, { op, new: now, old }] of this.#owedAt(query, place)) {
      const [record, was] = [now ?? null, old ?? null]
      const put = (type: Due['type'], of: Omit<Due, 'type' | 'isOptional'>, isOptional = false): void =>
        void dues.set(key, { type, isOptional, ...of })
      if (binding.event === 'UPDATE') {
        if (op === 'update') put('UPDATE', { record, old: was })
        else if (op === 'insert' && (before?.has(key) === true || movesKeys))
          put('UPDATE', { record, old: keyJson(this.#table(name), record!) }, movesKeys)
      } else if (binding.event === '*' || binding.event === op.toUpperCase())
        put(op.toUpperCase() as Due['type'], { record, old: was })
    }
    return dues
  }

  #isOf(event: HeardEvent, due: Due, table: Table): boolean {
    if (event.type !== due.type) return false
    if ((event.record === null ? null : JSON.stringify(event.record)) !== due.record) return false
    if (due.old === null) return event.old === null
    if (event.old === null) return false
    if (!this.#options.keyOnly.has(table.name)) return JSON.stringify(event.old) === due.old
    return JSON.stringify(event.old) === keyJson(table, due.old)
  }

  #owedAt(query: number, place: number): ReadonlyMap<string, Owed> {
    const name = `${query} ${place}`
    let owed = this.#owed.get(name)
    if (owed === undefined) {
      owed = owedAt(this.#options.truth, query, place)
      this.#owed.set(name, owed)
    }
    return owed
  }

  #placeOf({ committedMs }: HeardEvent): number | null {
    const place = this.#options.spans.findIndex(([from, to]) => committedMs >= from && committedMs <= to)
    return place === -1 ? null : place
  }

  #tablesOf({ table }: AskedBinding): readonly string[] {
    return table === null ? this.#options.tables.map(({ name }) => name) : [table]
  }

  #table(name: string): Table {
    return this.#options.tables.find(table => table.name === name)!
  }
}

const keyJson = (table: Table, row: string): string => {
  const all = JSON.parse(row) as JsonRow
  return JSON.stringify(Object.fromEntries(table.key.map(column => [column, all[column]])))
}

/** Whose eyes it had at a commit: of two where one became the other. */
function usersAt({ swaps, user }: HistoryPeer, place: number): number[] {
  for (const { from, to, before, after } of swaps) {
    if (place <= from) return [before]
    if (to === null || place <= to) return [before, after]
  }
  return [user]
}

const nameOf = (binding: number, table: string, place: number, key: string): string =>
  `${binding} ${table} ${place} ${key}`

const say = ({ type, table, record, old }: HeardEvent): string =>
  `${type} ${table} ${JSON.stringify(old)} -> ${JSON.stringify(record)}`
