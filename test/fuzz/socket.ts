// A WebSocket of the fuzzer: whatever comes is shown to the oracle and kept until it is asked for.
import { once } from 'node:events'
import { WebSocket } from 'ws'
import type { PeerCode } from '../../src/protocol/codes.ts'
import type { Run } from './run.ts'

export type Frame = { readonly type: string; readonly [field: string]: unknown }

export class FuzzSocket {
  readonly sent: string[] = []
  closeCode: number | null = null
  onFrame: (frame: Frame) => void = () => {}
  readonly #run: Run
  readonly #ws: WebSocket
  #closed = false
  #lastError: PeerCode | null = null
  readonly #wakes = new Set<() => void>()

  private constructor(run: Run, ws: WebSocket) {
    this.#run = run
    this.#ws = ws
    ws.on('error', () => {})
    ws.on('message', data => this.#take(String(data)))
    ws.on('close', code => {
      this.#closed = true
      this.closeCode = code
      run.oracle.closed(code === 1006 ? null : code, this.#lastError, this.sent)
      for (const wake of this.#wakes) wake()
    })
  }

  /** @param token in the Authorization header; null to send none */
  static async open(run: Run, token: string | null): Promise<FuzzSocket> {
    const headers = token === null ? {} : { authorization: `Bearer ${token}` }
    const ws = new WebSocket(`${run.url.replace('http', 'ws')}/v1/socket`, { headers })
    const socket = new FuzzSocket(run, ws)
    await once(ws, 'open')
    return socket
  }

  get isClosed(): boolean {
    return this.#closed
  }

  send(data: string | Buffer, binary = Buffer.isBuffer(data)): void {
    this.sent.push(String(data).slice(0, 500))
    if (this.sent.length > 12) this.sent.shift()
    if (this.#ws.readyState === WebSocket.OPEN) this.#ws.send(data, { binary })
  }

  /** The next frame that fits; null when the connection closes first, or nothing comes within the time. */
  next(fits: (frame: Frame) => boolean, timeoutMs = 5000): Promise<Frame | null> {
    if (this.#closed) return Promise.resolve(null)
    return new Promise(resolve => {
      const before = this.onFrame
      const done = (frame: Frame | null): void => {
        clearTimeout(timer)
        this.onFrame = before
        this.#wakes.delete(wake)
        resolve(frame)
      }
      const wake = (): void => done(null)
      const timer = setTimeout(() => {
        this.#run.oracle.fail(`a WebSocket did not answer within ${timeoutMs} ms`, this.sent)
        done(null)
      }, timeoutMs)
      this.#wakes.add(wake)
      this.onFrame = frame => {
        before(frame)
        if (fits(frame)) done(frame)
      }
    })
  }

  /** Everything sent before has been answered, or the connection is closed. */
  async settled(): Promise<void> {
    const id = 2 ** 40
    const answer = this.next(frame => frame.type === 'unsubscribed' && frame.id === id)
    this.send(JSON.stringify({ type: 'unsubscribe', id }))
    await answer
  }

  terminate(): void {
    this.#ws.terminate()
  }

  #take(text: string): void {
    const frame = this.#run.oracle.frame(text, this.sent)
    if (frame === null) return
    const isOfAll = frame.type === 'error' && frame.id === undefined && frame.ref === undefined
    if (isOfAll) this.#lastError = frame.code as PeerCode
    this.onFrame(frame)
  }
}
