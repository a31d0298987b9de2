// A subscriber of millions of rows: counts and checks each frame as it comes, and keeps none.
import { once } from 'node:events'
import { WebSocket } from 'ws'
import type { RowChange } from '../../src/protocol/messages.ts'

export interface CountedFrame {
  readonly type: string
  readonly done?: boolean
  readonly changes?: readonly RowChange[]
  readonly rows?: readonly { id: number }[]
  readonly op?: string
  readonly key?: { readonly id: number }
  readonly position?: string
  readonly code?: string
}

/** One subscription on a WebSocket of its own. */
export class CountingSocket {
  /** How often each id was inserted, updated or deleted. */
  readonly inserts = new Map<number, number>()
  readonly ops: Record<string, number> = {}
  readonly resyncs: string[] = []
  readonly errors: string[] = []
  frames = 0
  largestFrame = 0
  /** Deltas that ended. */
  deltas = 0
  /** Parts of the delta that has not ended. */
  openParts = 0
  snapshots = 0
  subscribed = false
  readonly #socket: WebSocket

  private constructor(socket: WebSocket) {
    this.#socket = socket
    socket.on('message', data => this.#take(String(data)))
    socket.on('error', error => this.errors.push(error.message))
  }

  static async open(
    url: string,
    token: string,
    kind: 'live' | 'changes',
    query: { table: string; filter?: readonly (readonly [string, string])[]; select?: readonly string[] },
  ): Promise<CountingSocket> {
    const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/socket`, {
      headers: { authorization: `Bearer ${token}` },
    })
    const counting = new CountingSocket(socket)
    await once(socket, 'open')
    socket.send(JSON.stringify({ type: 'subscribe', id: 1, kind, ...query }))
    await counting.until(() => (kind === 'live' ? counting.snapshots > 0 : counting.subscribed))
    return counting
  }

  get total(): number {
    return this.inserts.size
  }

  /** Stops taking anything, as a peer that hangs does. */
  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  async until(condition: () => boolean, timeoutMs = 60_000): Promise<void> {
    const deadline = Date.now() + timeoutMs
    while (!condition()) {
      if (this.errors.length > 0) throw new Error(this.errors.join())
      if (Date.now() > deadline)
        throw new Error(
          `not in time: ${JSON.stringify(this.ops)}, ${this.total} rows, ${this.deltas} deltas, resyncs ${this.resyncs}`,
        )
      await new Promise(resolve => setTimeout(resolve, 10))
    }
  }

  close(): void {
    this.#socket.terminate()
  }

  #take(text: string): void {
    this.frames += 1
    if (text.length > this.largestFrame) this.largestFrame = text.length
    const frame = JSON.parse(text) as CountedFrame
    if (frame.type === 'subscribed') this.subscribed = true
    else if (frame.type === 'snapshot') {
      for (const { id } of frame.rows!) this.#count(id, 'snapshot row')
      if (frame.done) this.snapshots += 1
    } else if (frame.type === 'delta') {
      this.openParts += 1
      for (const change of frame.changes!) {
        if (change.op === 'truncate') this.#clear()
        else if (change.op === 'delete') this.#forget((change.key as { id: number }).id)
        else this.#count((change.key as { id: number }).id, change.op)
        if (change.op === 'delete' || change.op === 'truncate') this.ops[change.op] = (this.ops[change.op] ?? 0) + 1
      }
      if (frame.done) {
        this.deltas += 1
        this.openParts = 0
      }
    } else if (frame.type === 'change') {
      if (frame.op === 'insert') this.#count(frame.key!.id, 'insert')
      else this.ops[frame.op!] = (this.ops[frame.op!] ?? 0) + 1
    } else if (frame.type === 'resync') {
      this.resyncs.push(frame.code!)
      this.#clear()
      this.openParts = 0
    } else if (frame.type === 'error') this.errors.push(text)
  }

  #count(id: number, op: string): void {
    this.ops[op] = (this.ops[op] ?? 0) + 1
    if (op === 'update') return
    const count = (this.inserts.get(id) ?? 0) + 1
    this.inserts.set(id, count)
    if (count > 1) this.errors.push(`row ${id} came ${count} times, last by ${op}`)
  }

  #forget(id: number): void {
    if (!this.inserts.delete(id)) this.errors.push(`delete of the unknown row ${id}`)
  }

  #clear(): void {
    this.inserts.clear()
  }
}
