// One channel heard over each wire, in the same words: what a listener is told, and why it ended.
import type { GapEvent, MessageEvent, PresenceEvent, ResyncEvent } from '../../../src/protocol/messages.ts'
import { parseQueryPositions, type QueryPosition } from '../../../src/protocol/position.ts'
import type { Transport } from '../../checker/wires.ts'
import { ChannelClient, Refused } from '../../support/channel-client.ts'
import { type SseEvent, SseStream } from '../../support/node.ts'

export type Heard =
  /** Each poll begins with it. @prop connection null where the wire does not say */
  | { readonly kind: 'joined'; readonly resumed: boolean; readonly connection: string | null }
  | { readonly kind: 'message'; readonly message: MessageEvent }
  | { readonly kind: 'presence'; readonly presence: PresenceEvent }
  | { readonly kind: 'gap'; readonly missed: number | null }
  | { readonly kind: 'resync'; readonly code: string }
  /** Nothing but where it stands. */
  | { readonly kind: 'position' }

export interface HearRequest {
  /** Of the node. */
  readonly url: string
  readonly wire: Transport
  readonly token: string
  readonly topic: string
  readonly since: string | null
  /** Whether it is there itself, and is told who else is: not over polls. */
  readonly presence: boolean
  /** How long an answer may take. */
  readonly patienceMs: number
  /** @param position with its tag, where one came along */
  onHeard(heard: Heard, position: string | null): void
  /** It ended, and nobody here ended it. @param code `closed` when nothing was said */
  onEnd(code: string): void
}

export interface Hearing {
  pause(): void
  goOn(): void
  close(): void
}

/** Resolves when it is in the channel. @throws NotLetIn, or what the network throws */
export function hear(request: HearRequest): Promise<Hearing> {
  if (request.wire === 'websocket') return bySocket(request)
  return request.wire === 'sse' ? byStream(request) : byPolls(request)
}

export class NotLetIn extends Error {
  readonly code: string

  constructor(code: string) {
    super(code)
    this.code = code
  }
}

/** Where a position with its tag lies. @throws on what is none */
export function placeOf(position: string): QueryPosition {
  const [place] = parseQueryPositions(position) ?? []
  if (place === undefined) throw new Error(`${position} is no position`)
  return place
}

const aliveMs = 300

async function bySocket(request: HearRequest): Promise<Hearing> {
  const { url, token, topic, since, presence, patienceMs } = request
  const client = await ChannelClient.open({ url }, token, patienceMs)
  let state: 'joining' | 'joined' | 'over' = 'joining'
  let tag = ''
  const close = (): void => {
    state = 'over'
    clearInterval(looking)
    client.cut()
  }
  const end = (code: string): void => {
    if (state !== 'joined') return
    close()
    request.onEnd(code)
  }
  client.onFrame = frame => {
    if (state === 'over') return
    if (frame.type === 'joined') {
      state = 'joined'
      tag = frame.tag
      request.onHeard(
        { kind: 'joined', resumed: frame.resumed, connection: client.connection },
        `${frame.position}.${tag}`,
      )
    } else if (frame.type === 'error') {
      if (frame.id !== undefined) end(frame.code)
    } else if (frame.type === 'heartbeat')
      request.onHeard({ kind: 'position' }, Object.values(frame.positions)[0] ?? null)
    else {
      const heard = heardOf(frame.type, frame)
      const position = 'position' in frame && frame.position !== undefined ? `${frame.position}.${tag}` : null
      if (heard !== null) request.onHeard(heard, position)
    }
  }
  const looking = setInterval(() => {
    if (client.failure !== null) end(`failed: ${String(client.failure)}`)
    else if (!client.isOpen) end(client.lastError?.code ?? 'closed')
    else client.say({ type: 'heartbeat' })
  }, aliveMs)
  const more = presence ? { presence, track: { meta: 1 } } : {}
  try {
    await client.join(topic, { self: true, ...more, ...(since === null ? {} : { since }) })
  } catch (error) {
    close()
    throw error instanceof Refused ? new NotLetIn(error.code) : error
  }
  return { pause: () => client.pause(), goOn: () => client.goOn(), close }
}

const untappable = { pause: () => {}, goOn: () => {} }

const pathOf = (topic: string, parameters: Readonly<Record<string, string>>): string =>
  `/v1/channels/${encodeURIComponent(topic)}?${new URLSearchParams({ self: 'true', ...parameters })}`

async function byStream(request: HearRequest): Promise<Hearing> {
  const { url, token, topic, since, presence, patienceMs } = request
  const abort = new AbortController()
  const timer = setTimeout(() => abort.abort(), patienceMs)
  const path = pathOf(topic, presence ? { presence: 'true', track: '1' } : {})
  let stream: SseStream
  try {
    stream = await SseStream.open({ url }, path, token, since ?? undefined, abort.signal)
  } finally {
    clearTimeout(timer)
  }
  if (stream.status !== 200) throw new NotLetIn(stream.errorBody.code ?? String(stream.status))
  let ending = 'closed'
  let isOver = false
  const take = ({ event, id, data }: SseEvent): void => {
    if (isOver) return
    const position = id === '' ? null : id
    if (event === 'error') ending = (data as { code: string }).code
    else if (event === 'joined') {
      const { resumed, connection } = data as { resumed: boolean; connection: string }
      request.onHeard({ kind: 'joined', resumed, connection }, position)
    } else if (event === 'heartbeat') request.onHeard({ kind: 'position' }, position)
    else {
      const heard = heardOf(event, data as object)
      if (heard !== null) request.onHeard(heard, position)
    }
  }
  for (const event of stream.events) take(event)
  stream.onEvent = take
  const end = (): void => {
    if (!isOver) request.onEnd(ending)
    isOver = true
  }
  stream.onEnd = end
  if (stream.ended) end()
  return {
    ...untappable,
    close: () => {
      isOver = true
      stream.close()
    },
  }
}

interface Polled {
  readonly events: readonly { readonly event: string; readonly data: object; readonly id?: string }[]
  readonly position: string | null
  readonly channels: readonly { readonly resumed: boolean }[]
  readonly poll: string
}

async function byPolls(request: HearRequest): Promise<Hearing> {
  const { url, token, topic, patienceMs } = request
  const abort = new AbortController()
  let since = request.since
  let key: string | null = null
  const poll = async (): Promise<void> => {
    const path = pathOf(topic, {
      ...(since === null ? {} : { after: since, wait: '1' }),
      ...(key === null ? {} : { poll: key }),
    })
    const response = await fetch(`${url}${path}`, {
      headers: { authorization: `Bearer ${token}`, accept: 'application/json' },
      signal: AbortSignal.any([abort.signal, AbortSignal.timeout(patienceMs)]),
    })
    const text = await response.text()
    if (abort.signal.aborted) return
    if (response.status === 304) {
      request.onHeard({ kind: 'position' }, null)
      return
    }
    const body = JSON.parse(text) as Polled & { code?: string }
    if (response.status !== 200) throw new NotLetIn(body.code ?? String(response.status))
    key = body.poll
    request.onHeard({ kind: 'joined', resumed: body.channels[0]!.resumed, connection: null }, null)
    for (const { event, data, id } of body.events) {
      const heard = heardOf(event, data)
      if (heard !== null) request.onHeard(heard, id ?? null)
    }
    if (body.position === null) return
    since = body.position
    request.onHeard({ kind: 'position' }, since)
  }
  await poll()
  void (async () => {
    try {
      while (!abort.signal.aborted) await poll()
    } catch (error) {
      if (!abort.signal.aborted) request.onEnd(error instanceof NotLetIn ? error.code : 'closed')
    }
  })()
  return { ...untappable, close: () => abort.abort() }
}

/** @returns null for what is not of the channel */
function heardOf(event: string, data: object): Heard | null {
  switch (event) {
    case 'message':
      return { kind: 'message', message: data as MessageEvent }
    case 'presence':
      return { kind: 'presence', presence: data as PresenceEvent }
    case 'gap':
      return { kind: 'gap', missed: (data as GapEvent).missed }
    case 'resync':
      return { kind: 'resync', code: (data as ResyncEvent).code }
    default:
      return null
  }
}
