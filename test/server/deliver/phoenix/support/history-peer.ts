// One client of a generated history over the Phoenix wire: joins, leaves, is cut off and comes back as clients do, and notes all that it
// is told, for history-judge.ts.
import type { JsonRow } from '../../../../../src/protocol/messages.ts'
import type { Vsn } from '../../../../../src/server/deliver/phoenix/wire.ts'
import { eventually } from '../../../../support/eventually.ts'
import { Peer, type Said } from './peer.ts'

export interface AskedBinding {
  readonly event: '*' | 'INSERT' | 'UPDATE' | 'DELETE'
  /** Null: all tables of `public`. */
  readonly table: string | null
  readonly filter: string | null
  /** The same in SQL. */
  readonly where: string
  readonly select: readonly string[] | null
}

export interface HeardEvent {
  /** Places in `bindings` of the peer. */
  readonly bindings: readonly number[]
  readonly table: string
  readonly type: 'INSERT' | 'UPDATE' | 'DELETE'
  readonly record: JsonRow | null
  readonly old: JsonRow | null
  /** Milliseconds since 1970. */
  readonly committedMs: number
  readonly visit: number
  readonly atMs: number
}

/** Between a join and the end of what it is owed. Numbers are of moments. */
export interface Visit {
  /** What the node had surely told when it asked to join. */
  readonly servedBefore: number
  /** Begun when it knew that it had joined: what follows is owed, if it did not come back. */
  readonly from: number
  /** What came before its link was of no use any more may have been lost; null: it began anew. */
  readonly brokenMs: number | null
  /** It was told that it cannot go on from where it stood. */
  isAnew: boolean
  /** It came back, or read slowly: each table goes on by itself then. */
  catchesUp: boolean
}

export class HistoryPeer {
  readonly name: string
  readonly bindings: readonly AskedBinding[]
  readonly heard: HeardEvent[] = []
  readonly visits: Visit[] = []
  /** Moments up to which nothing is owed any more: it was told, or left. */
  readonly ended: { readonly visit: number; readonly at: number }[] = []
  /** From one moment, at which it stood, to another, it became another user. */
  readonly swaps: { readonly from: number; to: number | null; readonly before: number; readonly after: number }[] = []
  /** Moments at which it was seen to hold everything. */
  readonly settled: number[] = [0]
  /** What it was told that ended, and the moment at which it stood then. */
  readonly errors: { readonly message: string; readonly stood: number }[] = []
  readonly faults: string[] = []
  user: number
  state: 'out' | 'joining' | 'in' | 'leaving' | 'cut' = 'out'
  isSlow = false
  readonly #begun: () => number
  readonly #url: string
  readonly #key: string
  readonly #tokens: readonly string[]
  readonly #vsn: Vsn
  #peer: Peer | null = null
  #lastRef = 0
  #ids: readonly number[] = []
  #joinRef = ''
  #leaveRef = ''
  #joiningFrom: Omit<Visit, 'from'> = { servedBefore: 0, brokenMs: null, isAnew: false, catchesUp: false }
  #brokenMs = 0

  constructor(options: {
    name: string
    bindings: readonly AskedBinding[]
    user: number
    vsn: Vsn
    /** The number of the last commit that was begun. */
    begun: () => number
    url: string
    /** Of the socket, which no channel speaks for. */
    key: string
    /** By user. */
    tokens: readonly string[]
  }) {
    this.name = options.name
    this.bindings = options.bindings
    this.user = options.user
    this.#vsn = options.vsn
    this.#begun = options.begun
    this.#url = options.url
    this.#key = options.key
    this.#tokens = options.tokens
  }

  get topic(): string {
    return `realtime:${this.name}`
  }

  get isPresent(): boolean {
    return this.state === 'in' && !this.isSlow
  }

  async connect(): Promise<void> {
    const peer = await Peer.open(this.#url, this.#key, this.#lastRef, this.#vsn)
    peer.onSaid = said => {
      if (this.#peer === peer) this.#take(said)
    }
    this.#peer = peer
  }

  /** @param brokenMs of the link before, if it was cut */
  join(brokenMs: number | null = null): void {
    this.#join({ servedBefore: this.#stood, brokenMs, isAnew: false, catchesUp: brokenMs !== null })
  }

  #join(from: Omit<Visit, 'from'>): void {
    const postgres_changes = this.bindings.map(({ event, table, filter, select }) => ({
      event,
      schema: 'public',
      ...(table === null ? {} : { table }),
      ...(filter === null ? {} : { filter }),
      ...(select === null ? {} : { select }),
    }))
    this.#joiningFrom = from
    this.state = 'joining'
    const payload = { config: { postgres_changes }, access_token: this.#tokens[this.user] }
    this.#joinRef = this.#peer!.push(this.topic, 'phx_join', payload)
  }

  leave(): void {
    this.#over()
    this.state = 'leaving'
    this.#leaveRef = this.#peer!.push(this.topic, 'phx_leave', {}, this.#joinRef)
  }

  /** Its socket breaks, without a word. */
  async cut(): Promise<void> {
    const peer = this.#peer!
    this.#lastRef = peer.lastRef
    this.#peer = null
    this.#brokenMs = this.isSlow ? this.#brokenMs : performance.now()
    this.isSlow = false
    this.state = 'cut'
    await peer[Symbol.asyncDispose]()
  }

  async comeBack(): Promise<void> {
    await this.connect()
    this.join(this.#brokenMs)
  }

  slow(): void {
    this.visits.at(-1)!.catchesUp = true
    this.isSlow = true
    this.#brokenMs = performance.now()
    this.#peer!.ws.pause()
  }

  read(): void {
    this.isSlow = false
    this.#peer!.ws.resume()
  }

  become(user: number): void {
    this.swaps.push({ from: this.#stood, to: null, before: this.user, after: user })
    this.user = user
    this.#peer!.push(this.topic, 'access_token', { access_token: this.#tokens[user] }, this.#joinRef)
  }

  /** Holds everything up to this moment. */
  settle(at: number): void {
    this.settled.push(at)
    const swap = this.swaps.at(-1)
    if (swap !== undefined) swap.to ??= at
  }

  async joined(): Promise<void> {
    await eventually(() => {
      if (this.state !== 'in') throw new Error(`${this.name} is ${this.state}: ${JSON.stringify(this.errors)}`)
    })
  }

  /** Everything that was sent before has come. */
  async flushed(): Promise<void> {
    await this.#peer?.ask('phoenix', 'heartbeat')
  }

  async end(): Promise<void> {
    await this.#peer?.[Symbol.asyncDispose]()
  }

  get #stood(): number {
    return this.settled.at(-1)!
  }

  /** What was not told when it ended is not owed. */
  #over(): void {
    this.ended.push({ visit: this.visits.length - 1, at: this.#stood })
  }

  #take({ topic, ref, event, payload }: Said): void {
    if (topic !== this.topic) return
    if (event === 'phx_reply' && ref === this.#joinRef && this.state === 'joining') {
      if (payload.status !== 'ok') {
        this.faults.push(`the join of ${this.name} was refused: ${JSON.stringify(payload)}`)
        return
      }
      this.#ids = payload.response.postgres_changes.map(({ id }: { id: number }) => id)
      this.state = 'in'
      this.visits.push({ ...this.#joiningFrom, from: this.#begun() })
    } else if (event === 'phx_reply' && ref === this.#leaveRef) this.state = 'out'
    else if (event === 'system' && payload.status === 'error') this.#fail(payload.message)
    else if (event === 'phx_error') {
      this.#over()
      // What it missed before may come yet.
      const { servedBefore, brokenMs } = this.visits.at(-1)!
      const isBack = brokenMs !== null
      this.#join({ servedBefore: isBack ? servedBefore : this.#stood, brokenMs, isAnew: true, catchesUp: true })
    } else if (event === 'postgres_changes') this.#hear(payload)
  }

  #fail(message: string): void {
    const visit = this.visits.at(-1)
    this.errors.push({
      message,
      stood: Math.min(this.#stood, visit?.brokenMs == null ? this.#stood : visit.servedBefore),
    })
    if (!message.startsWith('QUERY_CHANGED') || visit === undefined || visit.isAnew) return
    visit.isAnew = true
    this.ended.push({ visit: this.visits.length - 2, at: visit.servedBefore })
  }

  #hear({ ids, data }: Said['payload']): void {
    if (this.state !== 'in' && this.state !== 'leaving')
      this.faults.push(`${this.name} was told ${JSON.stringify(data)} while it was ${this.state}`)
    const bindings = ids.map((id: number) => this.#ids.indexOf(id))
    if (bindings.includes(-1)) this.faults.push(`${this.name} has none of the bindings ${ids}, but ${this.#ids}`)
    this.heard.push({
      bindings,
      table: data.table,
      type: data.type,
      record: data.record ?? null,
      old: data.old_record ?? null,
      committedMs: Date.parse(data.commit_timestamp),
      visit: this.visits.length - 1,
      atMs: performance.now(),
    })
  }
}
