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
  } catch (cause) {
    // A page's policy speaks against this transport, and not against others; an address does not mend itself.
    const isAddress = (cause as Error).name === 'SyntaxError'
    const refusal = { code: 'URL_INVALID', message: String(cause), retry: false }
    // Whoever opened it is not to hear of it before it has it.
    queueMicrotask(() => lose(isAddress ? { error: refusal, retry: 'never' } : broken))
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
