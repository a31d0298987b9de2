// The order in which one node takes a channel's messages: by their numbers, each once, with holes noticed. Pure: whoever holds it asks
// for what is missing, and says when it knows more.

import { type ChannelMessage, type Former, goesOn } from './message.ts'
import type { HistoryPage, Standing } from './relay/channel-relay.ts'

/** What is due to the members, in order. */
export type Due =
  | { readonly kind: 'message'; readonly message: ChannelMessage }
  /** So many before `seq`, and it itself, will not come. */
  | { readonly kind: 'gap'; readonly epoch: string; readonly seq: bigint; readonly missed: number | null }
  /** Numbers begin anew: what a member holds leads to nothing. */
  | { readonly kind: 'reset'; readonly epoch: string; readonly seq: bigint }

export class Sequence {
  readonly #hasHistory: boolean
  #epoch = ''
  #seq = 0n
  /** The greatest number heard of in this epoch: what lies between is to be read. */
  #heardSeq = 0n
  #hasBegun = false

  /** @param hasHistory what is missing can be read; else a hole is a gap */
  constructor(hasHistory: boolean) {
    this.#hasHistory = hasHistory
  }

  /** Where it stands: everything up to it was given, or came before anybody listened. */
  get standing(): Standing {
    return { epoch: this.#epoch, seq: this.#seq }
  }

  /** Messages are missing, and can be read: those after `standing.seq`. */
  get isBehind(): boolean {
    return this.#hasHistory && this.#heardSeq > this.#seq
  }

  /** Where the channel stood once everything published later is heard. */
  begin({ epoch, seq }: Standing): void {
    this.#hasBegun = true
    this.#epoch = epoch
    this.#seq = seq
    this.#heardSeq = seq
  }

  /** What is due after this number could not be kept: it is to be read again, where there is a history. */
  rewind(seq: bigint): void {
    this.#seq = seq
  }

  /** A message came, in any order, perhaps again. @returns what is due now */
  take(message: ChannelMessage): readonly Due[] {
    if (!this.#hasBegun) return []
    const { epoch, seq } = message
    if (!this.#follow(message)) {
      const reset = this.#reset(message, seq - 1n)
      return [reset, ...this.take(message)]
    }
    if (seq <= this.#seq) return []
    if (seq > this.#heardSeq) this.#heardSeq = seq
    const missed = seq - this.#seq - 1n
    if (missed > 0n && this.#hasHistory) return []
    this.#seq = seq
    const due: Due = { kind: 'message', message }
    return missed === 0n ? [due] : [{ kind: 'gap', epoch, seq: seq - 1n, missed: Number(missed) }, due]
  }

  /** Something may have been missed, and this is where the channel stands. @returns what is due now */
  stands(standing: Standing): readonly Due[] {
    if (!this.#hasBegun) return []
    const { epoch, seq } = standing
    if (!this.#follow(standing)) return [this.#reset(standing, seq)]
    if (seq <= this.#seq) return []
    this.#heardSeq = seq
    if (this.#hasHistory) return []
    const missed = Number(seq - this.#seq)
    this.#seq = seq
    return [{ kind: 'gap', epoch, seq, missed }]
  }

  /** A page of the history after `standing.seq` was read. @returns what is due now */
  fill(page: HistoryPage): readonly Due[] {
    const { epoch, first, messages } = page
    if (!this.#follow(page)) return [this.#reset(page, first - 1n)]
    const due: Due[] = []
    if (first > this.#seq + 1n) {
      const missed = Number(first - this.#seq - 1n)
      this.#seq = first - 1n
      due.push({ kind: 'gap', epoch, seq: this.#seq, missed })
    }
    for (const message of messages) {
      if (message.seq <= this.#seq) continue
      // Numbers of a history leave no room; one that does was damaged, and is told.
      const missed = message.seq - this.#seq - 1n
      if (missed > 0n) due.push({ kind: 'gap', epoch, seq: message.seq - 1n, missed: Number(missed) })
      this.#seq = message.seq
      due.push({ kind: 'message', message })
    }
    if (this.#heardSeq < this.#seq) this.#heardSeq = this.#seq
    return due
  }

  /** @returns false when its numbers begin anew, or some that were given are given again */
  #follow(now: { readonly epoch: string; readonly before?: readonly Former[] }): boolean {
    if (!goesOn({ epoch: this.#epoch, seq: this.#seq }, now)) return false
    if (this.#epoch === now.epoch) return true
    this.#epoch = now.epoch
    // What was heard of beyond may have been lost, and given again.
    this.#heardSeq = this.#seq
    return true
  }

  /** Begins in another epoch: where its own numbers begin, if those that were not heard can be read.
   *  @param seq where else */
  #reset(now: Pick<Standing, 'epoch' | 'seq' | 'before'>, seq: bigint): Due {
    this.#epoch = now.epoch
    this.#seq = this.#hasHistory ? (now.before?.[0]?.seq ?? 0n) : seq
    this.#heardSeq = this.#hasHistory ? now.seq : seq
    return { kind: 'reset', epoch: now.epoch, seq: this.#seq }
  }
}
