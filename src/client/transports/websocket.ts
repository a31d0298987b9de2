// One WebSocket to /v1/socket: the whole conversation on one connection.
import { retryOfClose } from '../../protocol/codes.ts'
import type { ErrorEvent } from '../../protocol/messages.ts'
import type { Loss, OpenTransport } from './transport.ts'
import { addressOf, broken, errorOfAll, frameOf } from './wire.ts'

/** What may wait in the socket: past it, a link that takes nothing is taken for lost. */
const maxBufferedBytes = 16 * 1024 * 1024

export const openWebSocket: OpenTransport = ({ url, token, listener }) => {
  let isOver = false
  let error: ErrorEvent | null = null
  let socket: WebSocket | undefined
  const lose = (loss: Loss): void => {
    if (isOver) return
    isOver = true
    listener.onLost(loss)
  }
  const send = (frame: object): void => {
    if (isOver || socket?.readyState !== 1) return
    if (socket.bufferedAmount < maxBufferedBytes) socket.send(JSON.stringify(frame))
    else {
      lose(broken)
      socket.close()
    }
  }
  /** Whoever opened it is not to hear of it before it has it. */
  const fail = (code: string, cause: unknown, retry: boolean): void =>
    queueMicrotask(() => lose({ error: { code, message: String(cause), retry }, retry: retry ? 'now' : 'never' }))
  try {
    const address = addressOf(url, 'socket')
    address.protocol = address.protocol.replace(/^http/, 'ws')
    socket = new globalThis.WebSocket(address)
    socket.addEventListener('open', () => send({ type: 'auth', token }))
    socket.addEventListener('message', ({ data }) => {
      const frame = isOver ? null : frameOf(data)
      if (frame === null) return
      error = errorOfAll(frame, error)
      listener.onFrame(frame)
    })
    socket.addEventListener('close', ({ code }) => lose({ error, retry: retryOfClose(code) }))
    // Says nothing; `close` follows it.
    socket.addEventListener('error', () => {})
    // Where a page's policy forbids the address, Chromium gives a socket that is closed, and no `close`.
    if (socket.readyState === 3) fail('TRANSPORT_BLOCKED', `the page may not connect to ${address.origin}`, true)
  } catch (cause) {
    // What forbids this transport may let others pass; an address does not mend itself.
    const isAddress = (cause as Error).name === 'SyntaxError'
    fail(isAddress ? 'URL_INVALID' : 'TRANSPORT_BLOCKED', cause, !isAddress)
  }
  return {
    name: 'websocket',
    send,
    close(comesBack) {
      isOver = true
      socket?.close(comesBack ? 4000 : 1000)
    },
  }
}
