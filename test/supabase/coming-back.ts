// A client of Supabase's as it is published, that is cut off and comes back by itself, and what it is owed then.
import { createClient } from '@supabase/supabase-js'
import { createClient as createClient2025 } from 'supabase-js-2025'
import { expect, vi } from 'vitest'
import { tokenFor } from '../support/node.ts'
import { crowding } from '../support/within.ts'

export const versions = ['2.119.1', '2.83.0'] as const
export type Version = (typeof versions)[number]

interface Seen {
  readonly id: number
  readonly atMs: number
}

interface ComingBackOptions {
  readonly version: Version
  readonly url: string
  readonly sub: string
  /** Default 5000: a client whose link is dead notices after up to twice this. */
  readonly heartbeatMs?: number
  /** Between two attempts to connect; left out: the client's own. */
  readonly pauseMs?: number
  readonly vsn?: '1.0.0' | '2.0.0'
  /** Default `room:1`. */
  readonly topic?: string
}

/** What the two packages have alike: their types differ. */
interface Channel {
  on(
    type: string,
    filter: object,
    heard: (told: { new: Row; payload: Row; status: string; message: string }) => void,
  ): Channel
  subscribe(heard: (status: string) => void): Channel
}
type Row = Readonly<Record<string, unknown>>
type Create = (
  url: string,
  key: string,
  options: object,
) => {
  channel(topic: string, options: object): Channel
  removeAllChannels(): Promise<unknown>
  readonly realtime: { disconnect(): unknown; setAuth(): Promise<void> }
}
const creators = { '2.119.1': createClient, '2.83.0': createClient2025 } as unknown as Record<Version, Create>

/** Hears what is inserted into `messages`, and what is said as `said` with `{"n": <id>}`. */
export class ComingBack implements AsyncDisposable {
  readonly changes: Seen[] = []
  readonly messages: Seen[] = []
  /** Of the channel, without those that only repeat the last. */
  readonly statuses: string[] = []
  readonly systems: string[] = []
  readonly #end: () => Promise<unknown>

  private constructor(end: (of: ComingBack) => () => Promise<unknown>) {
    this.#end = end(this)
  }

  static async join(options: ComingBackOptions): Promise<ComingBack> {
    const { version, url, sub, heartbeatMs = 5000, pauseMs, vsn, topic = 'room:1' } = options
    const token = await tokenFor(sub)
    const key = await tokenFor('', { role: 'anon' })
    const client = creators[version](url, key, {
      accessToken: async () => token,
      realtime: {
        heartbeatIntervalMs: heartbeatMs,
        ...(pauseMs === undefined ? {} : { reconnectAfterMs: () => pauseMs }),
        ...(vsn === undefined ? {} : { vsn }),
      },
    })
    const back = new ComingBack(() => async () => {
      await client.removeAllChannels()
      await client.realtime.disconnect()
    })
    // Else it joins first with its key alone.
    await client.realtime.setAuth()
    const seen = (list: Seen[], id: unknown): void => void list.push({ id: Number(id), atMs: performance.now() })
    client
      .channel(topic, { config: { private: true } })
      .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'messages' }, ({ new: row }) =>
        seen(back.changes, row.id),
      )
      .on('broadcast', { event: 'said' }, ({ payload }) => seen(back.messages, payload.n))
      .on('system', {}, ({ status, message }) => {
        if (status === 'error') back.systems.push(message)
      })
      .subscribe(status => {
        if (back.statuses.at(-1) !== status) back.statuses.push(status)
      })
    await back.joined(1)
    return back
  }

  get joins(): number {
    return this.statuses.filter(status => status === 'SUBSCRIBED').length
  }

  async joined(times: number): Promise<void> {
    await vi.waitFor(() => expect(this.joins, this.statuses.join()).toBeGreaterThanOrEqual(times), 40_000)
  }

  /** Until both the change and the message of this number have come. */
  async heard(id: number): Promise<void> {
    const last = (): number[] => [this.changes, this.messages].map(list => Math.max(0, ...list.map(seen => seen.id)))
    await vi.waitFor(() => expect(last()).toEqual([id, id]), 40_000)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end()
  }
}

/** What may come twice was sent within so long before the cut: a second between two questions whether it arrived, and the quarter of
 *  one in which timers tick. */
export const repeatedMs = 1250

/** All of a list that was begun when the client was there came, in order; what came again did so after a cut, and had
 *  come right before it.
 *  @param cuts when its links were cut, by `performance.now()` */
export function expectWhole(seen: readonly Seen[], upTo: number, cuts: readonly number[]): void {
  const first = new Map<number, number>()
  const late: string[] = []
  let isRepeating = false
  let before = 0
  for (const { id, atMs } of seen) {
    const firstMs = first.get(id)
    if (firstMs === undefined) {
      if (id !== first.size + 1) late.push(`${id} after ${first.size}`)
      first.set(id, atMs)
    } else {
      if (!isRepeating || id !== before + 1) {
        const cut = cuts.findLast(cutMs => cutMs <= atMs)
        if (cut === undefined) late.push(`${id} came twice without a cut`)
        else if (cut - firstMs > repeatedMs && cut - firstMs > repeatedMs * crowding())
          late.push(`${id} came again, ${Math.round(cut - firstMs)} ms after it had come`)
      }
    }
    isRepeating = firstMs !== undefined
    before = id
  }
  expect(late.slice(0, 5)).toEqual([])
  expect([...first.keys()]).toEqual(Array.from({ length: upTo }, (_, place) => place + 1))
}
