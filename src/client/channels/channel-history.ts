// What was said in a channel before, read page by page.
import type { MessageEvent, ResyncEvent } from '../../protocol/messages.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { messageOf } from './channel-message.ts'
import type { ChannelName } from './channels-options.ts'

export type HistoryRange = {
  /** So many of the newest first; the pages after it go on into the past. */
  readonly last?: number
  /** Those before this position, the newest of them first. */
  readonly before?: string
  /** Those after this position, towards now. */
  readonly after?: string
  /** Messages of a page, up to 1,000. Default: 100. */
  readonly limit?: number
}

export interface HistoryPage<Message> {
  /** Oldest first. */
  readonly messages: readonly Message[]
  /** Where the channel stood. */
  readonly position: string
  /** Some after the position that was asked for are no more, or never were: why. */
  readonly resync: { readonly code: string; readonly message: string } | null
}

interface Answer {
  readonly messages: readonly (MessageEvent & { position: string })[]
  readonly position: string
  readonly next: string | null
  readonly resync?: ResyncEvent
}

/** The pages of a channel's history: a loop over them, or one after another. */
export interface History<Message> extends AsyncIterable<HistoryPage<Message>> {
  /** The next page; null after the last.
   *  @throws TidegateError CHANNEL_REFUSED, HISTORY_OFF, POSITION_INVALID, PARAMETER_INVALID and what else the server answers */
  next(): Promise<HistoryPage<Message> | null>
}

export class Pages<Message> {
  readonly #request: (path: string) => Promise<Response>
  readonly #name: ChannelName
  readonly #range: HistoryRange
  /** What asks for the next page; null: there is none. */
  #next: URLSearchParams | null

  constructor(request: (path: string) => Promise<Response>, name: ChannelName, range: HistoryRange) {
    const { last, before, after, limit } = range
    if ([last, before, after].filter(given => given !== undefined).length > 1)
      throw new TidegateError('PARAMETER_INVALID', 'give one of last, before and after')
    this.#request = request
    this.#name = name
    this.#range = range
    this.#next = new URLSearchParams()
    if (last !== undefined) this.#next.set('last', String(last))
    else this.#continue(before === undefined ? { after } : { before }, limit)
  }

  /** See `History`. */
  async next(): Promise<HistoryPage<Message> | null> {
    if (this.#next === null) return null
    const { topic, private: isPrivate } = this.#name
    if (isPrivate === false) this.#next.set('private', 'false')
    const response = await this.#request(`channels/${encodeURIComponent(topic)}/history?${this.#next}`)
    const { messages, position, next, resync } = (await response.json()) as Answer
    const { after, last, limit = last } = this.#range
    if (next === null) this.#next = null
    else this.#continue(after === undefined ? { before: next } : { after: next }, limit)
    return {
      messages: messages.map(messageOf) as unknown as Message[],
      position,
      resync: resync === undefined ? null : { code: resync.code, message: resync.reason },
    }
  }

  #continue(from: { readonly before?: string | undefined; readonly after?: string | undefined }, limit?: number): void {
    this.#next = new URLSearchParams()
    for (const [name, value] of Object.entries({ ...from, limit }))
      if (value !== undefined) this.#next.set(name, String(value))
  }
}
