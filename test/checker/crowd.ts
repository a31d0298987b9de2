// Those who read: they come, go, come back, stop reading and go on, each with a judge of what it is told.
import { tokenFor } from '../support/node.ts'
import { Client } from './client.ts'
import type { Horizon } from './horizon.ts'
import { Judge, type JudgeOptions } from './judge.ts'
import { Random } from './random.ts'
import { Subscriber } from './subscriber.ts'
import { type Tally, wireCounts } from './tally.ts'
import type { Truth } from './truth.ts'
import { type Transport, transports } from './wires.ts'
import { type CheckedQuery, queries } from './world.ts'

export interface CrowdOptions {
  readonly seed: number
  readonly users: readonly string[]
  /** Connections; each holds up to four queries. */
  readonly clients: number
  readonly truth: Truth
  readonly horizon: Horizon
  readonly tally: Tally
  readonly windowMs: number
  readonly spoolBytes: number
  /** Of readers that hop between several nodes. */
  readonly hopping?: HoppingOptions
  /** Where the node is now. */
  url(): string
  /** Commits that are in the WAL, and that no SELECT shows. */
  stalled(): number
}

/** Readers that change the node and the transport whenever they come, and come back by themselves when they are cut off. */
export interface HoppingOptions {
  /** How long an answer may take, and how long a connection may say nothing, before it is given up; longer after failures. */
  readonly patienceMs: number
  readonly sampleOneIn: number
  /** How long those are away who are away for long. */
  readonly sleepMs: number
  nodeOf(localPort: number): string
  excuse: NonNullable<JudgeOptions['excuse']>
}

export interface Checked {
  readonly client: Client
  readonly judges: readonly { readonly reader: Subscriber; readonly judge: Judge }[]
}

export interface CrowdCounts {
  pauses: number
  laggards: number
  /** Queries let go of and taken up again on a connection that stayed. */
  swaps: number
  /** Subscriptions that began while commits were in the WAL that no SELECT showed. */
  begunWhileStalled: number
  /** Comings over another transport than before. */
  hops: number
  /** Connections given up because they said nothing. */
  givenUp: number
}

export class Crowd {
  readonly counts: CrowdCounts = {
    pauses: 0,
    laggards: 0,
    swaps: 0,
    begunWhileStalled: 0,
    hops: 0,
    givenUp: 0,
  }
  checked: Checked[] = []
  readonly #options: CrowdOptions
  readonly #steps: Random
  readonly #hops: Random
  #names = 0

  constructor(options: CrowdOptions) {
    this.#options = options
    this.#steps = Random.of(options.seed, 'steps')
    this.#hops = Random.of(options.seed, 'hops')
  }

  get readers(): Subscriber[] {
    return this.checked.flatMap(({ judges }) => judges.map(({ reader }) => reader))
  }

  /** Until the signal aborts or the time is over: somebody comes, goes, comes back, stops reading or goes on. */
  async bustle(until: number, signal: AbortSignal): Promise<void> {
    for (const { client } of this.checked) client.lagBehind()
    while (performance.now() < until && !signal.aborted) {
      await this.#step()
      this.#tend()
      await sleep(this.#steps.below(40))
    }
  }

  async #step(): Promise<void> {
    const random = this.#steps
    const { clients } = this.#options
    if (this.checked.length < clients) {
      await this.#newcomer()
      return
    }
    const { client } = random.pick(this.checked)
    const choice = random.below(12)
    if (!client.connected) this.#comes(client)
    else if (client.paused) client.goOn()
    else if (choice < 4) {
      client.leave()
      if (random.once(3)) this.#comes(client)
      else if (random.once(30)) client.sleepsUntil = performance.now() + (this.#options.hopping?.sleepMs ?? 0)
    } else if (choice < 6) {
      client.pause()
      this.counts.pauses += 1
    } else if (choice < 9) {
      if (client.swap(random)) this.counts.swaps += 1
    } else if (choice === 9) {
      client.leave()
      // Not before the verdict on what it was told.
      await this.#newcomer()
    }
  }

  /** Of those who hop: whoever was cut off comes back, and whoever hears nothing gives up. */
  #tend(): void {
    const { hopping } = this.#options
    if (hopping === undefined) return
    const now = performance.now()
    for (const { client } of this.checked) {
      if (!client.connected) {
        client.restMs ??= this.#hops.below(50 * 2 ** Math.min(client.failures, 5))
        if (!client.isAway && now - client.lastAt >= client.restMs) this.#comes(client)
      } else if (!client.paused && now - client.lastAt > client.patienceOf(hopping.patienceMs)) {
        client.giveUp()
        this.counts.givenUp += 1
      } else if (this.#hops.once(20)) client.mend()
    }
  }

  #comes(client: Client): void {
    if (performance.now() < client.sleepsUntil) return
    if (this.#options.hopping !== undefined && client.hop(this.#hops)) this.counts.hops += 1
    void client.come(this.#options.url())
  }

  /** Waits until every reader has been told of everything: those who are there, and half of those who are not and come
   *  back. @returns one that has not come further for so long */
  async quiet(end: bigint, patienceMs: number): Promise<Subscriber | null> {
    for (const { client } of this.checked) if (client.paused || client.options.isLaggard) client.goOn()
    const isWanted = (client: Client): boolean =>
      client.connected || (performance.now() >= client.sleepsUntil && (!client.isAway || this.#steps.once(2)))
    const wanted = this.checked.filter(({ client }) => isWanted(client))
    const tended = setInterval(() => this.#tend(), 100)
    try {
      return await this.#told(wanted, end, patienceMs)
    } finally {
      clearInterval(tended)
    }
  }

  async #told(wanted: readonly Checked[], end: bigint, patienceMs: number): Promise<Subscriber | null> {
    for (const { client } of wanted) {
      const { readers } = client.options
      let movedAt = performance.now()
      const farthest = new Map<Subscriber, bigint>()
      for (;;) {
        const late = readers.find(
          ({ failure, attached, lsn }) => failure === null && !(attached && lsn !== null && lsn >= end),
        )
        if (late === undefined) break
        // To begin again, and again, is to come no further.
        const come = late.lsn ?? 0n
        if (come > (farthest.get(late) ?? -1n)) {
          farthest.set(late, come)
          movedAt = performance.now()
        }
        if (performance.now() - movedAt > patienceMs) return late
        // Whoever is sent away with a code that lets it come back must get through in the end.
        if (readers.some(({ attached }) => !attached)) await client.complete(this.#options.url())
        await sleep(20)
      }
    }
    return null
  }

  /** Lets the oldest go, of more than there should be. */
  shrink(): void {
    for (const { client } of this.checked.splice(0, Math.max(0, this.checked.length - this.#options.clients)))
      client.leave()
  }

  /** Who it is and what it asks depends on the seed and its number only. */
  async #newcomer(): Promise<void> {
    const { seed, users, url, stalled, hopping } = this.#options
    this.#names += 1
    const random = Random.of(seed, 'client', this.#names)
    const user = random.pick(users)
    const transport = random.pick(transports)
    const streamKind = random.once(3) ? 'changes' : 'live'
    const wanted = new Map<string, { kind: 'live' | 'changes'; query: CheckedQuery }>()
    for (let i = random.pick([1, 1, 2, 4]); i > 0; i--) {
      const query = random.pick(queries)
      const isOther = transport === 'websocket' && random.once(3)
      const kind = isOther ? (random.once(2) ? 'changes' : 'live') : streamKind
      // One connection follows a query once.
      const name = `${kind} ${query.table} ${query.filter} ${query.select}`
      wanted.set(name, { kind, query: kind === 'changes' ? { ...query, ...someEvents(random) } : query })
    }
    const readers = [...wanted.values()].map(({ kind, query }, i) =>
      this.#reader({
        name: `reader ${this.#names}.${i}`,
        transport: hopping === undefined ? transport : 'hopping',
        kind,
        query,
        user,
        shared: wanted.size > 1,
      }),
    )
    const isLaggard = transport !== 'long-poll' && random.once(6)
    if (isLaggard) this.counts.laggards += 1
    if (stalled() > 0) this.counts.begunWhileStalled += readers.length
    const name = `client ${this.#names}`
    const client = new Client({
      ...{ name, transport, token: await tokenFor(user), readers, isLaggard },
      ...(hopping === undefined ? {} : { timeoutMs: hopping.patienceMs, nodeOf: hopping.nodeOf }),
    })
    this.checked.push({ client, judges: readers.map(reader => ({ reader, judge: this.#judge(reader) })) })
    void client.come(url())
  }

  #reader({ shared, ...wanted }: Wanted): Subscriber {
    const { seed, horizon, tally, hopping } = this.#options
    const counts = wireCounts(tally, wanted.transport, wanted.kind)
    counts.readers += 1
    if (shared) counts.shared += 1
    if (wanted.query.filter !== '' || wanted.query.events !== undefined) counts.filtered += 1
    return new Subscriber({
      ...wanted,
      random: Random.of(seed, wanted.name),
      counts,
      ...(hopping === undefined ? {} : { sampleOneIn: hopping.sampleOneIn }),
      floor: (longBefore, node, at) => horizon.floor(longBefore, node, at),
      told: (epoch, lsn, node) => horizon.told(epoch, lsn, node),
    })
  }

  #judge(reader: Subscriber): Judge {
    const { truth, horizon, windowMs, spoolBytes, tally, hopping } = this.#options
    const excuse = hopping === undefined ? {} : { excuse: hopping.excuse }
    return new Judge(reader, { truth, windowMs, spoolBytes, ceiling: at => horizon.ceiling(at), ...excuse }, tally)
  }
}

interface Wanted {
  readonly name: string
  readonly transport: Transport | 'hopping'
  readonly kind: 'live' | 'changes'
  readonly query: CheckedQuery
  readonly user: string
  readonly shared: boolean
}

const kindsOfEvents = [
  ['insert'],
  ['update'],
  ['delete'],
  ['insert', 'delete'],
  ['insert', 'update'],
  ['update', 'delete'],
] as const

/** Half of those who follow changes ask for some kinds of events only. */
const someEvents = (random: Random): { events?: readonly string[] } =>
  random.once(2) ? {} : { events: random.pick(kindsOfEvents) }

/** The subjects of the readers' tokens. */
export function usersOf(seed: number, length: number): string[] {
  const random = Random.of(seed, 'users')
  return Array.from({ length }, () => uuid(random))
}

function uuid(random: Random): string {
  const hex = Array.from({ length: 32 }, () => random.below(16).toString(16)).join('')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20)}`
}

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
