// A transport whose code is fetched when it is first needed: most pages never need another than the WebSocket.
import type { ClientFrame } from '../../protocol/messages.ts'
import type { OpenTransport, Transport, TransportName } from './transport.ts'
import { broken } from './wire.ts'

/** Frames that are sent before the code is there wait for it: none before `welcome`, so it is none of ours. */
export const later =
  (name: TransportName, load: () => Promise<OpenTransport>): OpenTransport =>
  options => {
    let isOver = false
    let transport: Transport | null = null
    load().then(
      open => {
        if (!isOver) transport = open(options)
      },
      () => {
        if (!isOver) options.listener.onLost(broken)
      },
    )
    return {
      name,
      send: (frame: ClientFrame) => transport?.send(frame),
      close(comesBack) {
        isOver = true
        transport?.close(comesBack)
      },
    }
  }
