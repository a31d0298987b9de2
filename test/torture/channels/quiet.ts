// The verdict, once nobody speaks and nothing is hurt: everybody is told of the end, then histories and presence are held against
// what was done.
import type { TorturedNodes } from '../nodes.ts'
import type { History } from './judge.ts'
import { type Ledger, nameOf, type Said } from './ledger.ts'
import type { Listener } from './listener.ts'
import { judgeTransactions } from './statements.ts'
import { placeOf } from './wires.ts'
import { type Room, rooms } from './world.ts'

export interface QuietOptions {
  readonly ledger: Ledger
  readonly listeners: readonly Listener[]
  readonly nodes: TorturedNodes
  /** Of a member of all rooms. */
  readonly token: string
  /** Says something in a room, until it is acknowledged. */
  mark(room: Room): Promise<Said>
}

/** Nobody comes any further for this long, though all is well: it is stuck, however slow the machine. */
const stuckMs = 60_000
/** More than are made by saying again that all is quiet. */
const muchMore = 300
const markAgainMs = 3000
const pageLength = 1000

export class Quiet {
  readonly #options: QuietOptions

  constructor(options: QuietOptions) {
    this.#options = options
  }

  async judge(): Promise<void> {
    const { ledger, listeners } = this.#options
    const quietAt = performance.now()
    for (const listener of listeners) listener.rest()
    const marks = new Map<Room, Said[]>()
    for (const room of rooms) marks.set(room, [await this.#options.mark(room)])
    let markedAt = performance.now()
    const late = await this.#until(() => {
      const left = listeners.filter(listener => !this.#hasCome(listener, marks, quietAt))
      // Without a history a mark may have been said before somebody came back, and be part of a gap.
      if (performance.now() - markedAt > markAgainMs) {
        markedAt = performance.now()
        for (const room of new Set(left.map(({ judge }) => judge.room)))
          void this.#options.mark(room).then(said => marks.get(room)!.push(said))
      }
      return left
    })
    for (const { judge, connected } of late) {
      const isMember = ledger.isMember(judge.user, judge.room)
      judge.find(
        isMember ? 'lost' : 'leaked',
        isMember
          ? `it did not come to ${nameOf(marks.get(judge.room)!.at(-1)!)}; connected: ${connected}`
          : 'it is in, and no member',
      )
    }
    if (late.length === 0) await this.#presence()
    for (const room of rooms) {
      const history = room.kind === 'plain' ? null : await this.#history(room)
      if (history !== null) this.#judgeHistory(room, history)
      for (const { judge } of listeners) if (judge.room === room) judge.look(history)
    }
  }

  /** Members have been told of the end, others have been refused. */
  #hasCome(
    { judge, connected, refusedAt }: Listener,
    marks: ReadonlyMap<Room, readonly Said[]>,
    quietAt: number,
  ): boolean {
    if (this.#options.ledger.isMember(judge.user, judge.room))
      return connected && marks.get(judge.room)!.some(said => judge.hasHeard(said))
    return !connected && refusedAt > quietAt
  }

  /** @returns what is left when nothing more goes from it */
  async #until<T>(left: () => readonly T[]): Promise<readonly T[]> {
    let before = Number.POSITIVE_INFINITY
    let deliveries = 0
    let movedAt = performance.now()
    for (;;) {
      const now = left()
      if (now.length === 0) return now
      const isMoving = this.#options.ledger.deliveries > deliveries + muchMore
      if (now.length < before || isMoving) {
        movedAt = performance.now()
        before = now.length
        deliveries = this.#options.ledger.deliveries
      }
      if (performance.now() - movedAt > stuckMs) return now
      await sleep(50)
    }
  }

  /** Who is there, as everybody is told, is who is there. */
  async #presence(): Promise<void> {
    const { listeners } = this.#options
    const here = (room: Room): string[] =>
      listeners
        .filter(({ judge, tracked }) => judge.room === room && tracked !== null)
        .map(({ tracked }) => tracked!)
        .sort()
    const untrue = await this.#until(() =>
      listeners.filter(
        ({ judge, mirror, tracked }) => tracked !== null && String(mirror.connections) !== String(here(judge.room)),
      ),
    )
    for (const { judge, mirror } of untrue)
      judge.find('wrong', `presence: it was told of ${mirror.connections}, and here are ${here(judge.room)}`)
    if (untrue.length > 0) return
    for (const room of rooms) {
      const wrong = await this.#until(() => (this.#isListed(room, here(room)) ? [] : [room]))
      if (wrong.length > 0)
        this.#options.ledger.find(
          'wrong',
          `presence: the list of ${room.topic} is ${this.#listed.get(room)}, and here are ${here(room)}`,
        )
    }
  }

  readonly #listed = new Map<Room, string>()
  readonly #listing = new Set<Room>()

  #isListed(room: Room, here: readonly string[]): boolean {
    if (this.#listed.get(room) === String(here)) return true
    if (this.#listing.has(room)) return false
    this.#listing.add(room)
    void this.#get(`/v1/channels/${encodeURIComponent(room.topic)}/presence?limit=1000`)
      .then(body => {
        const { members } = body as { members: { connection: string }[] }
        this.#listed.set(room, String(members.map(({ connection }) => connection).sort()))
      })
      .finally(() => this.#listing.delete(room))
    return false
  }

  /** What was acknowledged is in it, once; what was refused is not. */
  #judgeHistory(room: Room, history: History): void {
    const { ledger } = this.#options
    const numbers = new Map<number, bigint>()
    const twice = new Set<number>()
    for (const [seq, { n, id }] of history) {
      if (numbers.has(n)) twice.add(n)
      numbers.set(n, seq)
      const said = ledger.said[n]
      if (said === undefined || said.room !== room || said.outcome === 'refused')
        ledger.find('wrong', `the history of ${room.topic} has ${id}, ${said === undefined ? n : nameOf(said)}`)
    }
    for (const n of twice)
      if (!ledger.isHit(ledger.said[n]!)) ledger.find('repeated', `the history has ${nameOf(ledger.said[n]!)} twice`)
    judgeTransactions(ledger, room, numbers)
    if (room.kind === 'short') return
    for (const said of ledger.said) {
      if (said.room !== room || said.outcome !== 'accepted' || said.to !== null) continue
      if (!numbers.has(said.n) && !ledger.isHit(said))
        ledger.find(
          'lost',
          `${nameOf(said)} was acknowledged at ${Math.round(said.settledAt)} and is not in the history`,
        )
    }
  }

  /** In its order. */
  async #history(room: Room): Promise<History> {
    const pages: [bigint, { id: string; n: number }][][] = []
    for (let before: string | null = null; ; ) {
      const page = (await this.#get(
        `/v1/channels/${encodeURIComponent(room.topic)}/history?limit=${pageLength}${before === null ? '' : `&before=${before}`}`,
      )) as { messages: { id: string; position: string; payload: { n: number } }[]; next: string | null }
      pages.push(page.messages.map(({ id, position, payload }) => [placeOf(`${position}.x`).lsn, { id, n: payload.n }]))
      before = page.next
      if (before === null) return new Map(pages.reverse().flat())
    }
  }

  /** Asked of any node until it answers. */
  async #get(path: string): Promise<unknown> {
    const { nodes, token } = this.#options
    for (let attempt = 0; ; attempt++) {
      const node = nodes.all[attempt % nodes.all.length]!
      try {
        const response = await fetch(`${node.toClients.url}${path}`, {
          headers: { authorization: `Bearer ${token}` },
          signal: AbortSignal.timeout(5000),
        })
        const body = (await response.json()) as { code?: string }
        if (response.status === 200) return body
        if (attempt > 200) throw new Error(`${path} is answered with ${body.code}`)
      } catch (error) {
        if (attempt > 200) throw error
      }
      await sleep(200)
    }
  }
}

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
