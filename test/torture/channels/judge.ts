// What one listener is told, held against what was said: each message once, in order, with nothing left out but what is told as
// left out, and only while it was let in.
import { type CodeEntry, peerCodes } from '../../../src/protocol/codes.ts'
import type { QueryPosition } from '../../../src/protocol/position.ts'
import { type Ledger, nameOf, type Said } from './ledger.ts'
import { type Heard, placeOf } from './wires.ts'
import { type Room, shortLength } from './world.ts'

interface Delivery {
  readonly said: Said
  readonly id: string
  /** In a history. */
  readonly seq: bigint
  readonly at: number
  readonly life: string
}

interface Hole {
  readonly from: bigint
  readonly to: bigint
  readonly at: number
  /** What it was told right before. */
  readonly lines: readonly string[]
}

/** A history as it is read when all is quiet. */
export type History = ReadonlyMap<bigint, { readonly id: string; readonly n: number }>

const maxLines = 60
const maxHole = 100_000n

export class ChannelJudge {
  readonly name: string
  readonly user: string
  readonly room: Room
  /** What to come back with. */
  since: string | null = null
  readonly lines: string[] = []
  readonly #ledger: Ledger
  /** Of a history its number; else the low 32 bits of the number. Null: nobody said. */
  #at: bigint | null = null
  /** Since it began anew; without a history, all. */
  #seen = new Set<string>()
  /** Payloads told since it began anew. */
  #told = new Set<number>()
  /** What was said after this must have been told: performance.now(), when it last began anew. */
  #startedAt = Number.POSITIVE_INFINITY
  /** performance.now(), when it was in, and all that it had been told was found true. */
  #confirmedAt = 0
  /** It did not resume: a resync or a gap must come before anything else. */
  #isOwed = false
  /** To be judged when all is quiet. */
  #deliveries: Delivery[] = []
  /** To be held against the history, once it has come to its end. */
  #since: Delivery[] = []
  #holes: Hole[] = []
  #passed: { readonly at: bigint }[] = []

  constructor(options: { readonly name: string; readonly user: string; readonly room: Room; readonly ledger: Ledger }) {
    this.name = options.name
    this.user = options.user
    this.room = options.room
    this.#ledger = options.ledger
  }

  hasHeard(said: Said): boolean {
    return this.#told.has(said.n)
  }

  note(line: string): void {
    this.lines.push(`${Math.round(performance.now())} ${line}`)
    if (this.lines.length > maxLines) this.lines.shift()
  }

  /** @param life process of the node that tells it */
  take(heard: Heard, position: string | null, life: string): void {
    const short = heard.kind === 'message' ? JSON.stringify(heard.message.payload) : heard.kind
    if (heard.kind !== 'position')
      this.note(`${life} ${short} ${'resumed' in heard ? `resumed ${heard.resumed}` : ''} ${position}`)
    const place = position === null ? null : placeOf(position)
    switch (heard.kind) {
      case 'joined':
        this.#joined(heard.resumed, place)
        break
      case 'message':
        this.#message(heard.message, place, life)
        break
      case 'gap':
        this.#gap(heard.missed, place)
        break
      case 'resync':
        this.#resync(heard.code)
        return
      case 'position':
        if (place !== null && !this.#isOwed) this.#stands(place)
        break
      case 'presence':
    }
    if (position !== null && !this.#isOwed) this.since = position
  }

  #joined(resumed: boolean, place: QueryPosition | null): void {
    if (this.since === null) {
      this.#begin()
      if (place !== null) this.#at = this.#numberOf(place)
      return
    }
    if (!resumed) this.#isOwed = true
    else if (place !== null) this.#stands(place)
  }

  #message({ id, payload }: { id: string; payload?: unknown }, place: QueryPosition | null, life: string): void {
    const { room, user } = this
    const n = Number((payload as { n?: number } | undefined)?.n)
    if (place === null) {
      this.find('wrong', `${n} came without a position`)
      return
    }
    if (this.#isOwed) this.find('lost', `it did not resume, and was told ${n} before a resync or a gap`)
    this.#isOwed = false
    const number = this.#numberOf(place)
    const said = this.#ledger.heard(n, id, life, this.#hasHistory ? { epoch: place.epoch, seq: number } : null)
    if (said === null) {
      this.find('wrong', `it was told ${JSON.stringify(payload)}, which nobody said`)
      return
    }
    if (said.room !== room || (said.to !== null && said.to !== user))
      this.find('leaked', `${nameOf(said)} is for others`)
    if (this.#seen.has(id)) this.find('repeated', `${nameOf(said)} came again`)
    this.#seen.add(id)
    this.#told.add(n)
    const delivery = { said, id, seq: number, at: performance.now(), life }
    this.#deliveries.push(delivery)
    if (this.#hasHistory) this.#since.push(delivery)
    // What SQL says without a history has no number of its own.
    const isNumbered = this.#hasHistory || said.way !== 'sql'
    const step = this.#at === null ? null : this.#stepTo(number)
    if (step !== null && isNumbered && step <= 0n)
      this.find('disordered', `${nameOf(said)} is number ${number}, and it stood at ${this.#at}`)
    if (step !== null && step > (isNumbered ? 1n : 0n)) this.#leave(number, isNumbered ? 1n : 0n)
    if (step === null || step > 0n || isNumbered) this.#at = number
  }

  #gap(missed: number | null, place: QueryPosition | null): void {
    this.#isOwed = false
    this.#ledger.gaps += 1
    if (place === null) {
      this.find('wrong', 'a gap came without a position')
      return
    }
    const number = this.#numberOf(place)
    // Of a short history a node that heard nothing for a while cannot read all that it missed.
    if (this.room.kind === 'kept' && this.#ledger.losses.length === 0)
      this.find('lost', `a gap of ${missed}, in a history`)
    // Of a short history all that it may have had is meant, of no history what has a number.
    if (missed === null || this.#hasHistory) this.#begin()
    if (missed === null) {
      this.#at = number
      return
    }
    const step = this.#at === null ? null : this.#stepTo(number)
    // What is left out before it must be for others.
    if (step !== null && step > BigInt(missed)) this.#leave(number, BigInt(missed))
    if (step !== null && step < BigInt(missed))
      this.find('wrong', `it was told of a gap of ${missed}, and it is one of ${step}`)
    this.#at = number
  }

  #resync(code: string): void {
    this.#isOwed = false
    if (!this.#hasHistory) this.find('wrong', `a resync (${code}) where there is no history`)
    else if (!this.#ledger.hasLostSince(this.#confirmedAt)) {
      if (code !== 'HISTORY_PASSED' || this.room.kind !== 'short')
        this.find('resync without a cause', `${code}, and Redis lost nothing`)
      else if (this.#at !== null) this.#passed.push({ at: this.#at })
    }
    this.#ledger.resyncs[code] = (this.#ledger.resyncs[code] ?? 0) + 1
    this.#at = null
    this.since = null
    this.#seen.clear()
    this.#since = []
    this.#begin()
  }

  /** Nothing but where it stands was told. */
  #stands(place: QueryPosition): void {
    const number = this.#numberOf(place)
    if (this.#at === null) {
      this.#at = number
      return
    }
    const step = this.#stepTo(number)
    if (step !== null && step < 0n && this.#hasHistory)
      this.find('wrong', `its position went back from ${this.#at} to ${number}`)
    if (step !== null && step > 0n) this.#leave(number, 0n)
    if (step === null || step > 0n) this.#at = number
  }

  /** It ended. @param joinedAt performance.now(), when it asked to be let in; null: it was not let in */
  ended(code: string, life: string, joinedAt: number | null): void {
    this.note(`${life} ended: ${code}`)
    if (code.startsWith('failed')) this.find('wrong', code)
    const { retry } = (peerCodes as Readonly<Record<string, CodeEntry>>)[code] ?? { retry: 'now' }
    if (code !== 'CHANNEL_CLOSED' && code !== 'CHANNEL_REFUSED') {
      if (retry === 'never') this.find('wrong', `it was ended with ${code}`)
      return
    }
    const changes = this.#changes()
    const out = changes.filter(change => !change.isLetIn)
    const isSteady = (changes[0]?.committedAt ?? Number.POSITIVE_INFINITY) < this.#ledger.startedAt && out.length === 0
    if (isSteady) this.find('wrong', `${code}, though it was a member all the time`)
    if (code !== 'CHANNEL_CLOSED' || joinedAt === null) return
    const floor = this.#ledger.floor(life, joinedAt)
    const cause = out.find(({ number }) => number > floor)
    if (cause !== undefined) this.#ledger.raise(life, cause.number)
  }

  /** What can be said when all is quiet. @param history null without one */
  look(history: History | null): void {
    for (const { said, at, life } of this.#deliveries) {
      if (said.outcome === 'refused') this.find('wrong', `${nameOf(said)} was told at ${Math.round(at)}`)
      const last = this.#changes().findLast(({ begunAt }) => begunAt <= at)
      if (last === undefined || (!last.isLetIn && last.number <= said.bound)) {
        const shutOut =
          last === undefined
            ? 'never let in'
            : `shut out by change ${last.number}, begun at ${Math.round(last.begunAt)}`
        this.find(
          'leaked',
          `${nameOf(said)}, said after change ${said.bound}, was told at ${Math.round(at)} by ${life}; ${shutOut}`,
        )
      }
    }
    for (const hole of this.#holes.splice(0)) this.#explain(hole)
    for (const { at } of this.#passed.splice(0))
      if (this.#ledger.greatest(this.room) < at + BigInt(shortLength))
        this.find(
          'resync without a cause',
          `HISTORY_PASSED at ${at}, and ${this.#ledger.greatest(this.room)} is the newest`,
        )
    this.#deliveries = []
    // Others have not been told of what was lost.
    if (!this.#ledger.isMember(this.user, this.room)) return
    if (history !== null) this.#agrees(history)
    this.#hasAll()
    this.#confirmedAt = performance.now()
  }

  /** What it was told since it began anew is a piece of the history. */
  #agrees(history: History): void {
    const oldest = history.keys().next().value ?? 0n
    for (const { said, id, seq } of this.#since.splice(0)) {
      const kept = history.get(seq)
      if (kept !== undefined ? kept.id === id : said.to !== null || seq < oldest) continue
      this.find(
        'disordered',
        `${nameOf(said)} came as number ${seq}; the history has ${kept === undefined ? 'none' : `#${kept.n}`}`,
      )
      return
    }
  }

  /** What was said after it began, and was not lost, it was told. */
  #hasAll(): void {
    for (const said of this.#ledger.said) {
      if (said.room !== this.room || said.outcome !== 'accepted' || said.begunAt <= this.#startedAt) continue
      if ((said.to !== null && said.to !== this.user) || this.#told.has(said.n)) continue
      // Without a history the numbers tell of others.
      if (!this.#hasHistory && said.way !== 'sql') continue
      if (this.#hasHistory && this.#ledger.isHit(said)) continue
      this.find('lost', `${nameOf(said)} was not told; it began at ${Math.round(this.#startedAt)}`)
      return
    }
  }

  #explain({ from, to, at, lines }: Hole): void {
    if (to - from > maxHole) {
      this.find('lost', `numbers ${from} to ${to} were left out at ${Math.round(at)}`)
      return
    }
    for (let seq = from; seq <= to; seq++) {
      if (this.#ledger.isForOthers(this.room, seq, this.user, at)) continue
      for (const line of lines) this.note(`before: ${line}`)
      this.find(
        'lost',
        `number ${seq} (of ${from} to ${to}) was left out at ${Math.round(at)}, and nothing was told of it`,
      )
      return
    }
  }

  find(harm: Parameters<Ledger['find']>[0], text: string): void {
    const who = `${this.name} (${this.user}, ${this.room.topic}, ${this.room.kind})`
    this.note(`FOUND ${harm}: ${text}`)
    this.#ledger.find(harm, `${who}: ${text}\n${this.lines.map(line => `  ${line}`).join('\n')}`)
  }

  #begin(): void {
    this.#startedAt = performance.now()
    this.#told = new Set()
  }

  #leave(number: bigint, own: bigint): void {
    this.#holes.push({ from: this.#at! + 1n, to: number - own, at: performance.now(), lines: this.lines.slice(-25) })
  }

  get #hasHistory(): boolean {
    return this.room.kind !== 'plain'
  }

  #numberOf({ lsn, index }: QueryPosition): bigint {
    return this.#hasHistory ? lsn : BigInt(index)
  }

  /** How far it is from where it stands. Without a history a new epoch of the numbers shows as a leap: then nothing is said of it. */
  #stepTo(number: bigint): bigint | null {
    if (this.#hasHistory) return number - this.#at!
    const step = BigInt.asIntN(32, number - this.#at!)
    return this.#ledger.hasRestartedSince(this.#confirmedAt) && (step > maxHole || step < -maxHole) ? null : step
  }

  #changes() {
    return this.#ledger.changes.filter(
      ({ user, room, isRolledBack }) => user === this.user && room === this.room && !isRolledBack,
    )
  }
}
