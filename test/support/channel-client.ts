// A client of channels over one WebSocket. Strict: what comes that nobody asked for, twice, or of a channel that was not joined, fails
// whoever waits.
import { WebSocket } from 'ws'
import type { Join, MessageEvent, PresenceEvent, Send, ServerFrame, Track } from '../../src/protocol/messages.ts'

/** Whoever is a member of a room may be in its channel, and send to it. */
export const channelPolicies = `
  CREATE POLICY "members receive" ON realtime.messages FOR SELECT TO authenticated USING (
    EXISTS (SELECT 1 FROM public.members m WHERE m.user_id = (SELECT auth.uid()) AND 'room:' || m.room_id = realtime.topic()));
  CREATE POLICY "members send" ON realtime.messages FOR INSERT TO authenticated WITH CHECK (
    EXISTS (SELECT 1 FROM public.members m WHERE m.user_id = (SELECT auth.uid()) AND 'room:' || m.room_id = realtime.topic()));
`

/** What a channel's events are, in the order in which they came. */
export type Told =
  | ({ readonly kind: 'message'; readonly position: string | undefined } & MessageEvent)
  | ({ readonly kind: 'presence' } & PresenceEvent)
  | { readonly kind: 'gap'; readonly code: string; readonly missed: number | null }
  | { readonly kind: 'resync'; readonly code: string }
  | { readonly kind: 'error'; readonly code: string; readonly retryAfterMs: number | undefined }

type Frame<Type extends ServerFrame['type']> = Extract<ServerFrame, { type: Type }>

export class JoinedChannel {
  readonly told: Told[] = []
  readonly id: number
  readonly topic: string
  joined: Frame<'joined'> | null = null
  /** What to come back with. */
  since: string | null = null
  readonly #client: ChannelClient

  constructor(client: ChannelClient, id: number, topic: string) {
    this.#client = client
    this.id = id
    this.topic = topic
  }

  get messages(): (MessageEvent & { position: string | undefined })[] {
    return this.told.filter(each => each.kind === 'message')
  }

  /** Payloads, in order. */
  get payloads(): unknown[] {
    return this.messages.map(({ payload }) => payload)
  }

  /** Why it ended; null while it stands. */
  get ended(): Extract<Told, { kind: 'error' }> | null {
    const last = this.told.at(-1)
    return last?.kind === 'error' ? last : null
  }

  /** Resolves with what is answered. @throws the refusal */
  send(event: string, payload: Send['payload'], more: Omit<Send, 'event' | 'payload'> = {}): Promise<Frame<'sent'>> {
    const content = payload === undefined ? {} : { payload }
    return this.#client.ask({ type: 'send', id: this.id, event, ...content, ...more }) as Promise<Frame<'sent'>>
  }

  async track(meta: Track['meta'], more: Omit<Track, 'meta'> = {}): Promise<void> {
    await this.#client.ask({ type: 'track', id: this.id, meta, ...more })
  }

  async untrack(): Promise<void> {
    await this.#client.ask({ type: 'untrack', id: this.id })
  }

  leave(): void {
    this.#client.say({ type: 'unsubscribe', id: this.id })
  }

  waitFor(condition: () => boolean, timeoutMs?: number): Promise<void> {
    return this.#client.waitFor(condition, timeoutMs)
  }
}

export class Refused extends Error {
  readonly code: string
  readonly retryAfterMs: number | undefined

  constructor(code: string, message: string, retryAfterMs?: number) {
    super(`${code}: ${message}`)
    this.code = code
    this.retryAfterMs = retryAfterMs
  }
}

export class ChannelClient {
  readonly frames: ServerFrame[] = []
  /** Its name, as the server said. */
  connection = ''
  closeCode: number | null = null
  lastError: { code: string; retryAfterMs?: number } | null = null
  /** Told of each frame, after it was taken. */
  onFrame: (frame: ServerFrame) => void = () => {}
  readonly #socket: WebSocket
  readonly #patienceMs: number
  readonly #channels = new Map<number, JoinedChannel>()
  readonly #asked = new Map<number, { resolve: (frame: ServerFrame) => void; reject: (error: unknown) => void }>()
  #lastId = 0
  #lastRef = 0
  #failure: unknown = null
  #wake: (() => void)[] = []

  private constructor(socket: WebSocket, patienceMs: number) {
    this.#socket = socket
    this.#patienceMs = patienceMs
  }

  /** Connects, and waits for its welcome. @param patienceMs for that, and for being let into a channel. @throws Refused */
  static async open(node: { readonly url: string }, token: string, patienceMs = 10_000): Promise<ChannelClient> {
    const socket = new WebSocket(`${node.url.replace('http', 'ws')}/v1/socket`, {
      headers: { authorization: `Bearer ${token}` },
      perMessageDeflate: false,
    })
    const client = new ChannelClient(socket, patienceMs)
    socket.on('message', data => client.#take(JSON.parse(String(data)) as ServerFrame))
    socket.on('close', code => {
      client.closeCode = code
      for (const { reject } of client.#asked.values()) reject(new Refused('CLOSED', `the socket closed with ${code}`))
      client.#asked.clear()
      client.#woken()
    })
    socket.on('error', error => {
      client.#failure ??= error
      client.#woken()
    })
    try {
      await client.waitFor(() => client.connection !== '' || client.closeCode !== null)
    } catch (error) {
      client.cut()
      throw error
    }
    if (client.connection === '')
      throw new Refused(client.lastError?.code ?? 'CLOSED', `closed with ${client.closeCode}`)
    return client
  }

  get isOpen(): boolean {
    return this.closeCode === null
  }

  /** @throws Refused */
  async join(topic: string, more: Omit<Join, 'topic'> = {}): Promise<JoinedChannel> {
    this.#lastId += 1
    const channel = new JoinedChannel(this, this.#lastId, topic)
    this.#channels.set(channel.id, channel)
    this.say({ type: 'join', id: channel.id, topic, ...more })
    await this.waitFor(() => channel.joined !== null || channel.ended !== null || !this.isOpen)
    const { ended } = channel
    if (ended !== null) throw new Refused(ended.code, `${topic} was refused`, ended.retryAfterMs)
    if (channel.joined === null) throw new Refused(this.lastError?.code ?? 'CLOSED', `closed with ${this.closeCode}`)
    return channel
  }

  say(frame: object): void {
    this.#socket.send(JSON.stringify(frame))
  }

  /** A frame that is answered under a number of its own. */
  ask(frame: object): Promise<ServerFrame> {
    this.#lastRef += 1
    const ref = this.#lastRef
    return new Promise((resolve, reject) => {
      if (!this.isOpen) {
        reject(new Refused('CLOSED', 'the socket is closed'))
        return
      }
      this.#asked.set(ref, { resolve, reject })
      this.say({ ...frame, ref })
    })
  }

  /** What came and should not have. */
  get failure(): unknown {
    return this.#failure
  }

  async waitFor(condition: () => boolean, timeoutMs = this.#patienceMs): Promise<void> {
    const deadline = Date.now() + timeoutMs
    while (!condition()) {
      if (this.#failure !== null) throw this.#failure
      const left = deadline - Date.now()
      if (left <= 0) throw new Error(`timed out; the last frames: ${JSON.stringify(this.frames.slice(-6))}`)
      let timer: NodeJS.Timeout | undefined
      await Promise.race([
        new Promise<void>(resolve => this.#wake.push(resolve)),
        new Promise<void>(resolve => {
          timer = setTimeout(resolve, left)
        }),
      ])
      clearTimeout(timer)
    }
  }

  /** Reads nothing more from its socket, until `goOn`. */
  pause(): void {
    this.#socket.pause()
  }

  goOn(): void {
    this.#socket.resume()
  }

  /** Says that it goes. */
  close(): void {
    this.#socket.close(1000)
  }

  /** Is gone without a word. */
  cut(): void {
    this.#socket.terminate()
  }

  [Symbol.dispose](): void {
    this.cut()
  }

  #take(frame: ServerFrame): void {
    this.frames.push(frame)
    if (this.frames.length > 10_000) this.frames.shift()
    try {
      this.#read(frame)
      this.onFrame(frame)
    } catch (error) {
      this.#failure ??= error
    }
    this.#woken()
  }

  #read(frame: ServerFrame): void {
    switch (frame.type) {
      case 'welcome':
        this.connection = frame.connection
        break
      case 'joined': {
        const channel = this.#of(frame.id)
        channel.joined = frame
        channel.since = `${frame.position}.${frame.tag}`
        break
      }
      case 'message': {
        const { type: _type, channel: number, position, ...message } = frame
        const channel = this.#numbered(number)
        channel.told.push({ kind: 'message', position, ...message })
        this.#stand(channel, position)
        break
      }
      case 'presence': {
        const { type: _type, channel: number, ...event } = frame
        this.#numbered(number).told.push({ kind: 'presence', ...event })
        break
      }
      case 'gap': {
        const channel = this.#numbered(frame.channel)
        channel.told.push({ kind: 'gap', code: frame.code, missed: frame.missed })
        this.#stand(channel, frame.position)
        break
      }
      case 'resync':
        this.#of(frame.id).told.push({ kind: 'resync', code: frame.code })
        break
      case 'heartbeat':
        for (const [id, position] of Object.entries(frame.positions)) {
          const channel = this.#channels.get(Number(id))
          if (channel !== undefined) channel.since = position
        }
        break
      case 'sent':
      case 'tracked':
        this.#answered(frame.ref)?.resolve(frame)
        break
      case 'error':
        this.#refused(frame)
    }
  }

  #refused(frame: Frame<'error'>): void {
    const { code, message, retryAfterMs } = frame
    if (typeof frame.ref === 'number') {
      this.#answered(frame.ref)?.reject(new Refused(code, message, retryAfterMs))
      return
    }
    if (frame.ref === null) return
    if (frame.id === undefined) {
      this.lastError = { code, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) }
      return
    }
    this.#of(frame.id).told.push({ kind: 'error', code, retryAfterMs })
  }

  #answered(ref: number) {
    const asked = this.#asked.get(ref)
    if (asked === undefined) throw new Error(`an answer to ${ref}, which was not asked or was answered`)
    this.#asked.delete(ref)
    return asked
  }

  #stand(channel: JoinedChannel, position: string | undefined): void {
    if (position !== undefined) channel.since = `${position}.${channel.joined!.tag}`
  }

  #of(id: number): JoinedChannel {
    const channel = this.#channels.get(id)
    if (channel === undefined) throw new Error(`a frame of the channel ${id}, which was not joined`)
    return channel
  }

  #numbered(number: number): JoinedChannel {
    for (const channel of this.#channels.values())
      if (channel.joined?.channel === number && channel.ended === null) return channel
    throw new Error(`a frame of the channel numbered ${number}, which was not joined or has ended`)
  }

  #woken(): void {
    for (const resolve of this.#wake.splice(0)) resolve()
  }
}
