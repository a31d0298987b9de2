// Plays one history: transactions one after the other, subscribers that come, go, come back and stand still meanwhile.

import { Follower } from './follower.ts'
import type { History, Statement, Subscriber } from './history.ts'
import { judge } from './judge.ts'
import { type Site, StallError } from './site.ts'
import { Tally } from './tally.ts'
import { byKey, type Moment, Truth } from './truth.ts'

export interface Played {
  /** What is wrong, with the subscriber; null when nothing is. The first word is its kind. */
  readonly failure: string | null
  /** What the subscribers in question were told. */
  readonly story: string
  readonly tally: Tally
}

/** Transactions that change something; those after them are left out. */
export const enoughCommits = 32
/** How long the node may take to bring everybody to where they should be. */
const defaultPatienceMs = 15_000
/** Whoever waits longer than that is stuck, however busy the machine: what does not come at all comes to no newcomer either. */
const longestMs = 30_000
const pollMs = 3

/** @param schema holds the history's tables and rows, as `Site.build` makes them */
export function play(
  site: Site,
  schema: string,
  history: History,
  patienceMs: number = defaultPatienceMs,
): Promise<Played> {
  return site.withClient(async client => {
    await client.query(`SET search_path = ${schema}`)
    try {
      const truth = new Truth(history, client)
      await truth.begin()
      return await new Play({ site, schema, history, truth, patienceMs }).run()
    } catch (error) {
      if (!(error instanceof StallError)) throw error
      return { failure: `stall: ${error.message}`, story: '', tally: new Tally() }
    } finally {
      await client.query('DEALLOCATE ALL; RESET search_path')
    }
  })
}

interface Playing {
  readonly site: Site
  readonly schema: string
  readonly history: History
  readonly truth: Truth
  readonly patienceMs: number
}

class Play {
  readonly #site: Site
  readonly #history: History
  readonly #truth: Truth
  readonly #follower: (subscriber: Subscriber) => Follower
  readonly #followers: readonly Follower[]
  readonly #patienceMs: number
  readonly #tally = new Tally()
  /** Somebody did not come to where it should be: nobody needs to wait for it again. */
  #isStuck = false

  constructor({ site, schema, history, truth, patienceMs }: Playing) {
    this.#patienceMs = patienceMs
    this.#site = site
    this.#history = history
    this.#truth = truth
    this.#follower = subscriber => {
      const table = history.tables.find(({ name }) => name === subscriber.table)!
      return new Follower(site.door, schema, table, history.users[subscriber.user]!, subscriber)
    }
    this.#followers = history.subscribers.map(this.#follower)
  }

  async run(): Promise<Played> {
    const { transactions, pace } = this.#history
    let commits = 0
    for (const [place, transaction] of transactions.entries()) {
      if (commits === enoughCommits || this.#isStuck) break
      await this.#turn(place)
      if (place === 0 && pace === 'each') await this.#allStand(0n)
      const committed = await this.#truth.commit(transaction)
      for (const follower of this.#followers) follower.look()
      if (committed === null) continue
      commits += 1
      this.#count(committed.moment, transaction, committed.done)
      if (pace === 'burst') continue
      committed.moment.lsn = await this.#site.served(committed.moment.xid, longestMs)
      // Who is told what Postgres was asked comes later, and is waited for at the end.
      await this.#allStand(committed.moment.lsn, ({ asked }) => asked === null)
      for (const follower of this.#followers) follower.look()
    }
    return this.#end()
  }

  /** What befalls the subscribers before a transaction. */
  async #turn(place: number): Promise<void> {
    for (const follower of this.#followers) {
      const { joins, away, slow } = follower.subscriber
      if (joins === place) follower.come()
      if (follower.refusal !== null) continue
      if (away.some(([from]) => from === place && from > joins)) await follower.leave(place % 2 === 0)
      if (away.some(([from, to]) => to === place && from > joins)) follower.come()
      if (slow.some(([from]) => from === place && from > joins)) follower.fill()
      if (slow.some(([from, to]) => to === place && from > joins)) follower.drain()
    }
  }

  async #end(): Promise<Played> {
    for (const follower of this.#followers) {
      const { joins, away, slow } = follower.subscriber
      if (joins >= this.#history.transactions.length) continue
      await follower.settled()
      if (away.length > 0 && follower.isGone && follower.refusal === null && joins < away[0]![0]) follower.come()
      if (slow.length > 0) follower.drain()
      await follower.settled()
    }
    for (const moment of this.#truth.moments)
      if (moment.lsn === 0n && moment.xid !== '') moment.lsn = await this.#site.served(moment.xid, longestMs)
    const late = await this.#allStand(this.#truth.moments.at(-1)!.lsn)
    for (const follower of this.#followers) follower.end()
    const failures = this.#followers.map((follower, i) => {
      const wrong =
        judge(follower, this.#truth) ?? (late.has(follower) ? `end: it stands at ${late.get(follower)}` : null)
      return wrong === null ? null : { wrong, i }
    })
    this.#countFollowers()
    const found = failures.filter(failure => failure !== null)
    return {
      failure:
        found.length === 0
          ? null
          : found
              .map(({ wrong, i }) => `${wrong} (subscriber ${i}${this.#followers[i]!.asked === null ? '' : ', asked'})`)
              .join('\n'),
      story: found.map(({ i }) => this.#story(i)).join('\n'),
      tally: this.#tally,
    }
  }

  /** Waits until all subscribers have been told everything up to the position. One is stuck if it is late, and a newcomer to the
   *  same query was there first, and as much time has passed again: a busy machine is slow to both. @returns those who were not */
  async #allStand(lsn: bigint, counts: (follower: Follower) => boolean = () => true): Promise<Map<Follower, string>> {
    const begunAt = performance.now()
    let beside = null as { readonly to: Follower; readonly newcomer: Follower; cameMs: number | null } | null
    try {
      for (;;) {
        const { rows } = this.#truth.moments.at(-1)!
        const hasReached = (follower: Follower, { subscriber }: Follower = follower): boolean =>
          follower.hasReached(lsn, rows[this.#truth.queryOf(subscriber)]!)
        const late = this.#followers.filter(follower => counts(follower) && !hasReached(follower))
        if (late.length === 0) return new Map()
        const passedMs = performance.now() - begunAt
        if (!this.#isStuck && passedMs > this.#patienceMs) {
          const [to] = late as [Follower]
          if (beside?.to !== to) {
            letGo(beside?.newcomer)
            beside = { to, newcomer: this.#newcomerTo(to), cameMs: null }
          }
          if (beside.cameMs === null && hasReached(beside.newcomer, to)) beside.cameMs = passedMs
          this.#isStuck = passedMs > (beside.cameMs === null ? longestMs : 2 * beside.cameMs)
        }
        if (this.#isStuck) return new Map(late.map(follower => [follower, follower.stand]))
        await new Promise(resolve => setTimeout(resolve, pollMs))
      }
    } finally {
      letGo(beside?.newcomer)
    }
  }

  #newcomerTo({ subscriber }: Follower): Follower {
    const newcomer = this.#follower({ ...subscriber, joins: 0, away: [], slow: [] })
    newcomer.come()
    return newcomer
  }

  #story(place: number): string {
    const query = this.#truth.queryOf(this.#history.subscribers[place]!)
    const lines = this.#truth.moments.map(
      ({ lsn, rows, statements }, i) =>
        `  ${i} ${lsn.toString(16)} ${statements.map(([, sql]) => sql).join('; ')}\n      shows ${rows[query]!.replaceAll('\n', ' ')}`,
    )
    return [
      `subscriber ${place} was told`,
      ...this.#followers[place]!.told.map(line => `  ${line}`),
      'and was shown',
      ...lines,
    ].join('\n')
  }

  #count(moment: Moment, transaction: readonly Statement[], done: readonly Statement[]): void {
    this.#tally.count('changes', 'commit')
    for (const [kind] of done) this.#tally.count('changes', kind)
    if (transaction.length > 1 && done.length > 1) this.#tally.count('changes', 'several in one transaction')
    this.#countMoved(moment, transaction)
  }

  /** Rows that nobody wrote and that came or went all the same. */
  #countMoved(moment: Moment, transaction: readonly Statement[]): void {
    const before = this.#truth.moments.at(-2)!
    for (const [i, { table }] of this.#truth.queries.entries()) {
      if (moment.rows[i] === before.rows[i]) continue
      if (transaction.some(([kind, sql]) => sql.includes(` ${table.name} `) || /cascade|truncate|delete/.test(kind)))
        continue
      const [was, is] = [byKey(table, before.rows[i]!), byKey(table, moment.rows[i]!)]
      if ([...is.keys()].some(key => !was.has(key))) this.#tally.count('changes', 'rows moved in')
      if ([...was.keys()].some(key => !is.has(key))) this.#tally.count('changes', 'rows moved out')
    }
  }

  #countFollowers(): void {
    const judged = new Set<string>()
    for (const { refusal, asked, subscriber, resumed, held, received, resyncs } of this.#followers) {
      if (refusal !== null) continue
      if (asked === null) judged.add(subscriber.table)
      else this.#tally.count('readers', 'told what Postgres was asked')
      const { kind, joins, slow, filter, window } = subscriber
      this.#tally.count('readers', kind)
      if (joins > 0) this.#tally.count('readers', 'came late')
      if (slow.length > 0) this.#tally.count('readers', 'stood still')
      if (window !== undefined) this.#tally.count('readers', 'with order and limit')
      if (filter !== '') this.#tally.count('readers', 'with a filter')
      this.#tally.count('readers', 'came back at a position', resumed)
      this.#tally.count('compared', 'states', held.length)
      this.#tally.count('compared', 'events', received.length)
      this.#tally.count('compared', 'resyncs', resyncs.length)
    }
    for (const { table, shapes } of this.#history.policies)
      if (judged.has(table) || shapes.includes('inner table under policies of its own'))
        for (const shape of shapes) this.#tally.count('policies', shape)
  }
}

const letGo = (newcomer: Follower | undefined): void => void newcomer?.settled().then(() => newcomer.end())
