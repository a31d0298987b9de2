// The clients of the Phoenix wire, as they are published, joined to one channel, and fed with frames as a socket would bring them.
import { Presence, Socket } from 'phoenix'
import { messageFrame, parseIncoming } from '../../../../../src/server/deliver/phoenix/serializer.ts'
import type { Vsn } from '../../../../../src/server/deliver/phoenix/wire.ts'
import { realtimeClients, vsns } from './clients.ts'

export const fedTopic = 'room:1'

/** By key, what is listed under it: each with `ref`, and what it tells of itself. */
export type Listed = Readonly<Record<string, readonly { readonly [name: string]: unknown }[]>>

/** A client that has joined `room:1`. */
export interface FedClient {
  /** Takes whole WebSocket frames, one after the other. */
  feed(frames: Buffer): void
  /** Loses its socket, and joins again under another `ref`, with what it holds. */
  comeBack(): Promise<void>
  /** Its presenceState(). */
  readonly listed: Listed
  /** What its listeners were told of presence: `join a`, `leave a`, `sync`. */
  readonly told: string[]
  readonly broadcasts: unknown[]
  end(): void
}

export interface FedKind {
  readonly name: string
  readonly vsn: Vsn
  join(): Promise<FedClient>
}

/** A frame's payload as a socket gives it. */
function* payloadsOf(frames: Buffer): Generator<string | ArrayBuffer> {
  for (let at = 0; at < frames.length; ) {
    const isBinary = (frames[at]! & 0x0f) === 2
    const short = frames[at + 1]!
    const [start, length] =
      short < 126
        ? [at + 2, short]
        : short === 126
          ? [at + 4, frames.readUInt16BE(at + 2)]
          : [at + 10, Number(frames.readBigUInt64BE(at + 2))]
    const data = frames.subarray(start, start + length)
    yield isBinary ? new Uint8Array(data).buffer : data.toString()
    at = start + length
  }
}

/** Opens at once, and answers every push with ok. */
class FedSocket {
  static last: FedSocket | null = null
  readyState = 0
  binaryType = 'arraybuffer'
  onopen: ((event: object) => void) | null = null
  onmessage: ((event: object) => void) | null = null
  onclose: ((event: object) => void) | null = null
  onerror: ((event: object) => void) | null = null
  readonly #vsn: Vsn

  constructor(url: string | URL) {
    this.#vsn = new URL(url).searchParams.get('vsn') as Vsn
    FedSocket.last = this
    queueMicrotask(() => {
      this.readyState = 1
      this.onopen?.({})
    })
  }

  send(data: string | ArrayBuffer): void {
    const isBinary = typeof data !== 'string'
    const { joinRef, ref, topic } = parseIncoming(Buffer.from(data as string), isBinary, this.#vsn)
    const payload = '{"status":"ok","response":{"postgres_changes":[]}}'
    const reply = messageFrame(this.#vsn, { joinRef, ref, topic, event: 'phx_reply', payload })
    queueMicrotask(() => this.feed(reply))
  }

  feed(frames: Buffer): void {
    for (const data of payloadsOf(frames)) this.onmessage?.({ data })
  }

  close(code = 1000): void {
    this.readyState = 3
    this.onclose?.({ code, reason: '', wasClean: true })
  }
}

const url = 'ws://127.0.0.1:1/socket'
const reconnectAfterMs = (): number => 1

export const fedKinds: readonly FedKind[] = [
  ...Object.entries(realtimeClients).flatMap(([name, Client]) =>
    vsns.map((vsn): FedKind => ({ name, vsn, join: () => joinRealtime(Client, vsn) })),
  ),
  // Its package writes 2.0.0, whatever version it names.
  { name: 'phoenix', vsn: '2.0.0', join: joinPhoenix },
]

async function joinRealtime(
  Client: (typeof realtimeClients)[keyof typeof realtimeClients],
  vsn: Vsn,
): Promise<FedClient> {
  const options = { params: { apikey: 'key' }, vsn, transport: FedSocket as never, reconnectAfterMs }
  const client = new (Client as (typeof realtimeClients)['supabase-js'])(url, options)
  const channel = client.channel(fedTopic, { config: { presence: { key: 'me' } } })
  const [told, broadcasts]: [string[], unknown[]] = [[], []]
  channel.on('presence', { event: 'join' }, ({ key }) => told.push(`join ${key}`))
  channel.on('presence', { event: 'leave' }, ({ key }) => told.push(`leave ${key}`))
  channel.on('presence', { event: 'sync' }, () => told.push('sync'))
  channel.on('broadcast', { event: '*' }, message => broadcasts.push(message))
  let joins = 0
  const joined = (count: number): Promise<void> => until(() => joins >= count)
  channel.subscribe(status => {
    if (status === 'SUBSCRIBED') joins += 1
  })
  await joined(1)
  return {
    feed: frames => FedSocket.last!.feed(frames),
    comeBack: () => {
      FedSocket.last!.close(1012)
      return joined(joins + 1)
    },
    get listed() {
      return channel.presenceState() as Listed
    },
    told,
    broadcasts,
    end: () => client.disconnect(),
  }
}

async function joinPhoenix(): Promise<FedClient> {
  const socket = new Socket(url, { transport: FedSocket as never, reconnectAfterMs, rejoinAfterMs: () => 1 })
  socket.connect()
  const channel = socket.channel(`realtime:${fedTopic}`, {})
  const presence = new Presence(channel)
  const [told, broadcasts]: [string[], unknown[]] = [[], []]
  presence.onJoin(key => void told.push(`join ${key}`))
  presence.onLeave(key => void told.push(`leave ${key}`))
  presence.onSync(() => void told.push('sync'))
  channel.on('broadcast', message => void broadcasts.push(message))
  channel.join()
  await until(() => channel.state === 'joined')
  return {
    feed: frames => FedSocket.last!.feed(frames),
    comeBack: async () => {
      FedSocket.last!.close(1012)
      await until(() => channel.state !== 'joined')
      await until(() => channel.state === 'joined')
    },
    get listed() {
      const { state } = presence as unknown as { state: Record<string, { metas: Record<string, unknown>[] }> }
      const lists = Object.getOwnPropertyNames(state).map(key => [key, state[key]!.metas.map(renamed)] as const)
      return Object.fromEntries(lists)
    },
    told,
    broadcasts,
    end: () => socket.disconnect(),
  }
}

/** As supabase-js names it. */
function renamed({ phx_ref, phx_ref_prev: _, ...meta }: Record<string, unknown>): Record<string, unknown> {
  return { ...meta, presence_ref: phx_ref }
}

async function until(condition: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 20_000; !condition(); ) {
    if (Date.now() > deadline) throw new Error('the client did not join')
    await new Promise(resolve => setTimeout(resolve, 0))
  }
}
