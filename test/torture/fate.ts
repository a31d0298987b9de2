// What befalls, one thing after the other, as it is drawn from a seed or planned.
import { Random } from '../checker/random.ts'
import { type DueFault, type Fault, type FaultKind, faultOf } from './faults.ts'
import type { Tormentor, Wound } from './inflict.ts'

export interface FateOptions {
  readonly seed: number
  readonly kinds: readonly FaultKind[]
  /** Of the time between two faults, the mean. */
  readonly everyMs: number
  /** What befalls each time, instead of what is drawn of `kinds`. */
  readonly plan?: readonly DueFault[]
  readonly tormentor: Tormentor
  /** One begins. @returns called when nothing of it is left */
  begins(number: number, fault: Fault, wound: Wound): () => void
}

export class Fate {
  /** Faults that were drawn while what they would have befallen was hurt already. */
  passedOver = 0
  readonly #options: FateOptions
  #drawn = 0

  constructor(options: FateOptions) {
    this.#options = options
  }

  /** Resolves when all that befell until then is made good again. */
  async befall(until: number, signal: AbortSignal): Promise<void> {
    const { seed, kinds, everyMs, tormentor, begins } = this.#options
    const plan = kinds.length === 0 ? [] : this.#options.plan
    const suffered: Promise<void>[] = []
    for (let place = 0; !signal.aborted; place++) {
      const number = this.#drawn
      const due = plan === undefined ? faultOf(seed, number, { kinds, everyMs }) : plan[place]
      if (due === undefined || performance.now() + due.afterMs > until) break
      this.#drawn += 1
      await sleep(due.afterMs)
      const wound = await tormentor.prepare(due.fault, Random.of(seed, 'wound', number))
      if (wound === null) {
        this.passedOver += 1
        continue
      }
      suffered.push(wound.inflict().then(begins(number, due.fault, wound)))
      suffered.at(-1)!.catch(() => {})
    }
    await Promise.all(suffered)
    // What was planned may come to an end before the round does.
    if (!signal.aborted) await sleep(Math.max(0, until - performance.now()))
  }
}

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
