// A Phoenix socket without a client library: says what no client would, and sees every frame.
import { WebSocket } from 'ws'
import { eventually } from '../../../../support/eventually.ts'

export interface Said {
  readonly joinRef: string | null
  readonly ref: string | null
  readonly topic: string
  readonly event: string
  // biome-ignore lint/suspicious/noExplicitAny: each event has another
  readonly payload: any
}

export class Peer implements AsyncDisposable {
  readonly said: Said[] = []
  readonly ws: WebSocket
  readonly closed: Promise<number>
  #ref = 0

  private constructor(ws: WebSocket) {
    this.ws = ws
    ws.on('message', (data, isBinary) => {
      if (isBinary) return
      const [joinRef, ref, topic, event, payload] = JSON.parse(String(data))
      this.said.push({ joinRef, ref, topic, event, payload })
    })
    this.closed = new Promise(resolve => ws.on('close', resolve))
  }

  /** Speaks 2.0.0. */
  static async open(url: string, key: string, lastRef = 0): Promise<Peer> {
    const ws = new WebSocket(`${url.replace('http', 'ws')}/realtime/v1/websocket?apikey=${key}&vsn=2.0.0`)
    const peer = new Peer(ws)
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
    this.ws.send(JSON.stringify([event === 'phx_join' ? ref : joinRef, ref, topic, event, payload]))
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

  until(matches: (said: Said) => boolean): Promise<Said> {
    return eventually(() => {
      const found = this.said.find(matches)
      if (found === undefined) throw new Error(`not among ${JSON.stringify(this.said.map(({ event }) => event))}`)
      return found
    })
  }

  of(event: string, topic?: string): Said[] {
    return this.said.filter(said => said.event === event && (topic === undefined || said.topic === topic))
  }

  /** Ids of the rows that changes told of. */
  ids(topic?: string): unknown[] {
    return this.of('postgres_changes', topic).map(({ payload: { data } }) => (data.record ?? data.old_record).id)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.ws.terminate()
    await this.closed
  }
}
