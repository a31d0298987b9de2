// Sends connections away for other nodes to take, as a rebalancing asks: picked at random, evenly over its time, none
// twice. It stops where this node holds no more than it is to keep.
//
// How many must go is not known ahead: a balancer that throws dice sends some straight back here, one that looks for the
// least loaded node none. So the rest of the surplus is spread over the rest of the time, anew with each step.
import type { MoveOrder, Moving } from '../nodes/node-state.ts'

export interface SurplusOptions<T> {
  readonly order: MoveOrder
  /** Those that may be sent away, and are not again. */
  readonly candidates: readonly T[]
  /** How many connections are here and were not sent away. */
  readonly staying: () => number
  /** @returns false when it has gone already, or is better left alone */
  readonly sendAway: (candidate: T) => boolean
  /** From 0 to 1. */
  readonly random: () => number
  /** Milliseconds on a steady clock. */
  readonly now: number
}

export class Surplus<T> {
  readonly #options: SurplusOptions<T>
  /** In the order in which they go, the last first: at most the connections of this node. */
  readonly #candidates: T[]
  readonly #endsAt: number
  #steppedAt: number
  /** What is due and less than one connection. */
  #due = 0
  #moved = 0
  #isOver = false

  constructor(options: SurplusOptions<T>) {
    this.#options = options
    this.#candidates = shuffled(options.candidates, options.random)
    this.#steppedAt = options.now
    this.#endsAt = options.now + options.order.overMs
  }

  get moving(): Moving {
    return { rebalancing: this.#options.order.rebalancing, moved: this.#moved, isOver: this.#isOver }
  }

  /** Time has passed. */
  step(now: number): void {
    if (this.#isOver) return
    const { order, staying } = this.#options
    const leftMs = this.#endsAt - this.#steppedAt
    const part = leftMs <= 0 ? 1 : Math.min(1, (now - this.#steppedAt) / leftMs)
    // Of those sent away, one of so many nodes gets this part back.
    const returning = order.nodes > 1 ? order.nodes / (order.nodes - 1) : 1
    this.#due += Math.max(0, staying() - order.keep) * returning * part
    this.#steppedAt = now
    while (this.#due >= 1 || (part === 1 && this.#due > 0)) {
      this.#due -= 1
      if (staying() <= order.keep || !this.#sendOneAway()) break
    }
    if (now >= this.#endsAt || this.#candidates.length === 0) this.#isOver = true
  }

  #sendOneAway(): boolean {
    for (let candidate = this.#candidates.pop(); candidate !== undefined; candidate = this.#candidates.pop()) {
      if (!this.#options.sendAway(candidate)) continue
      this.#moved += 1
      return true
    }
    return false
  }
}

/** Fisher and Yates. */
function shuffled<T>(items: readonly T[], random: () => number): T[] {
  const list = [...items]
  for (let last = list.length - 1; last > 0; last -= 1) {
    const place = Math.floor(random() * (last + 1))
    const item = list[last]!
    list[last] = list[place]!
    list[place] = item
  }
  return list
}
