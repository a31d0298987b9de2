// A Phoenix socket without a client library: says what no client would, and sees every frame.
import { WebSocket } from 'ws'
import type { Vsn } from '../../../../../src/server/deliver/phoenix/wire.ts'

export interface Said {
  readonly joinRef: string | null
  readonly ref: string | null
  readonly topic: string
  readonly event: string
  // biome-ignore lint/suspicious/noExplicitAny: each event has another
  readonly payload: any
}

/** Of what hangs. */
const untilMs = 20_000

export class Peer implements AsyncDisposable {
  readonly said: Said[] = []
  readonly ws: WebSocket
  readonly closed: Promise<number>
  onSaid: (said: Said) => void = () => {}
  readonly #hearing = new Set<(said: Said) => void>()
  readonly #vsn: Vsn
  #ref = 0

  private constructor(ws: WebSocket, vsn: Vsn) {
    this.ws = ws
    this.#vsn = vsn
    ws.on('message', (data, isBinary) => {
      if (isBinary) return
      const message = JSON.parse(String(data))
      const [joinRef, ref, topic, event, payload] =
        vsn === '2.0.0' ? message : [null, message.ref, message.topic, message.event, message.payload]
      const said = { joinRef, ref, topic, event, payload }
      this.said.push(said)
      this.onSaid(said)
      for (const hear of this.#hearing) hear(said)
    })
    this.closed = new Promise(resolve => ws.on('close', resolve))
  }

  static async open(url: string, key: string, lastRef = 0, vsn: Vsn = '2.0.0'): Promise<Peer> {
    const ws = new WebSocket(`${url.replace('http', 'ws')}/realtime/v1/websocket?apikey=${key}&vsn=${vsn}`)
    const peer = new Peer(ws, vsn)
    peer.#ref = lastRef
    await new Promise<void>((resolve, reject) => {
      ws.once('open', resolve)
      ws.once('error', reject)
    })
    return peer
  }

  get lastRef(): number {
    return this.#ref
  }

  /** @returns the ref */
  push(topic: string, event: string, payload: unknown = {}, joinRef: string | null = null): string {
    this.#ref += 1
    const ref = String(this.#ref)
    const join_ref = event === 'phx_join' ? ref : joinRef
    const isArray = this.#vsn === '2.0.0'
    this.ws.send(
      JSON.stringify(isArray ? [join_ref, ref, topic, event, payload] : { join_ref, ref, topic, event, payload }),
    )
    return ref
  }

  async ask(
    topic: string,
    event: string,
    payload: unknown = {},
    joinRef: string | null = null,
  ): Promise<Said['payload']> {
    const ref = this.push(topic, event, payload, joinRef)
    return (await this.until(said => said.event === 'phx_reply' && said.ref === ref)).payload
  }

  /** Waits for the reply. */
  async join(topic: string, config: object = {}, token: string | null = null): Promise<Said['payload']> {
    return this.ask(topic, 'phx_join', { config, ...(token === null ? {} : { access_token: token }) })
  }

  async until(matches: (said: Said) => boolean): Promise<Said> {
    const found = this.said.find(matches)
    if (found !== undefined) return found
    const { promise, resolve, reject } = Promise.withResolvers<Said>()
    const hear = (said: Said): void => {
      if (matches(said)) resolve(said)
    }
    const timer = setTimeout(() => {
      reject(new Error(`not among ${JSON.stringify(this.said.map(({ event }) => event))}`))
    }, untilMs)
    this.#hearing.add(hear)
    try {
      return await promise
    } finally {
      clearTimeout(timer)
      this.#hearing.delete(hear)
    }
  }

  of(event: string, topic?: string): Said[] {
    return this.said.filter(said => said.event === event && (topic === undefined || said.topic === topic))
  }

  /** Ids of the rows that changes told of. */
  ids(topic?: string): unknown[] {
    return this.of('postgres_changes', topic).map(({ payload: { data } }) => (data.record ?? data.old_record).id)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // One that reads nothing would never be told that it is closed.
    this.ws.resume()
    this.ws.terminate()
    await this.closed
  }
}
