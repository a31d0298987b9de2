// Clients that come, do what clients do, and go, each in another way.
import { once } from 'node:events'
import { WebSocket } from 'ws'

export interface Comer {
  /** Of a node, without a slash at the end. */
  readonly url: string
  readonly token: string
  readonly room: number
}

/** Resolves when it has come, been told something, and gone. @throws where it was refused or cut off */
type Visit = (comer: Comer) => Promise<void>

const patienceMs = 10_000

async function opened(url: string, options: object, frames: readonly string[]): Promise<WebSocket> {
  const socket = new WebSocket(url.replace('http', 'ws'), options)
  socket.on('error', () => {})
  await Promise.race([
    once(socket, 'open'),
    once(socket, 'close').then(() => Promise.reject(new Error('it was refused'))),
  ])
  for (const frame of frames) socket.send(frame)
  return socket
}

/** @throws when it closes before */
async function told(socket: WebSocket, isIt: (text: string) => boolean): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const timer = setTimeout(() => reject(new Error('it was told nothing')), patienceMs)
  socket.on('message', data => isIt(String(data)) && resolve())
  socket.once('close', code => reject(new Error(`it was closed with ${code}`)))
  await promise.finally(() => clearTimeout(timer))
}

async function gone(socket: WebSocket, how: 'said' | 'cut'): Promise<void> {
  const closed = once(socket, 'close')
  if (how === 'said') socket.close(1000)
  else socket.terminate()
  await closed
}

const nativeFrames = (room: number): string[] => [
  JSON.stringify({ type: 'subscribe', id: 1, kind: 'live', table: 'messages', filter: `room_id=eq.${room}` }),
  JSON.stringify({ type: 'subscribe', id: 2, kind: 'changes', table: 'messages' }),
  JSON.stringify({ type: 'join', id: 3, topic: `room:${room}`, private: false, presence: true }),
  JSON.stringify({ type: 'track', id: 3, ref: 1, meta: { room } }),
]

const native =
  (how: 'said' | 'cut'): Visit =>
  async ({ url, token, room }) => {
    const headers = { authorization: `Bearer ${token}` }
    const socket = await opened(`${url}/v1/socket`, { headers }, nativeFrames(room))
    await told(socket, text => text.includes('"tracked"'))
    await gone(socket, how)
  }

const phoenix: Visit = async ({ url, token, room }) => {
  const binding = { event: '*', schema: 'public', table: 'messages', filter: `room_id=eq.${room}` }
  const join = { config: { postgres_changes: [binding], presence: { key: '' } } }
  const frames = [
    ['1', '1', `realtime:room:${room}`, 'phx_join', join],
    ['1', '2', `realtime:room:${room}`, 'presence', { type: 'presence', event: 'track', payload: { room } }],
  ].map(frame => JSON.stringify(frame))
  const socket = await opened(`${url}/realtime/v1/websocket?apikey=${token}&vsn=2.0.0`, {}, frames)
  await told(socket, text => text.includes('presence_diff') || text.includes('"presence_state"'))
  socket.send(JSON.stringify(['1', '3', `realtime:room:${room}`, 'phx_leave', {}]))
  await told(socket, text => text.includes('phx_close'))
  await gone(socket, 'said')
}

const stream: Visit = async ({ url, token, room }) => {
  const leave = new AbortController()
  const headers = { authorization: `Bearer ${token}`, accept: 'text/event-stream' }
  const signal = AbortSignal.any([leave.signal, AbortSignal.timeout(patienceMs)])
  const response = await fetch(`${url}/v1/live/messages?room_id=eq.${room}`, { headers, signal })
  if (response.status !== 200) throw new Error(`it was refused with ${response.status}`)
  for await (const _ of response.body!) break
  leave.abort()
}

const polls: Visit = async ({ url, token, room }) => {
  const headers = { authorization: `Bearer ${token}`, accept: 'application/json' }
  const signal = AbortSignal.timeout(patienceMs)
  const path = `${url}/v1/live/messages?room_id=eq.${room}`
  const first = await fetch(path, { headers, signal })
  const { position } = (await first.json()) as { position?: string }
  if (position === undefined) throw new Error(`it was refused with ${first.status}`)
  const next = await fetch(`${path}&after=${encodeURIComponent(position)}&wait=0`, { headers, signal })
  await next.arrayBuffer()
}

const stranger: Visit = async ({ url }) => {
  const refused = await fetch(`${url}/v1/live/messages`, { headers: { authorization: 'Bearer none' } })
  await refused.arrayBuffer()
  if (refused.status !== 401) throw new Error(`a stranger was answered ${refused.status}`)
}

/** In turn. */
export const visits: readonly Visit[] = [native('said'), stream, native('cut'), phoenix, polls, native('cut'), stranger]
