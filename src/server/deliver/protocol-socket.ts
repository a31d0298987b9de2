// A WebSocket of ws that tells its one listener directly, and gives our codes to what breaks the standard.
import { type RawData, WebSocket } from 'ws'
import { closeCodeOf, type PeerCode, peerCodes } from '../../protocol/codes.ts'
import type { Place } from './connections.ts'
import { closeReason } from './refusal.ts'

export interface SocketListener {
  /** A frame came. */
  message(data: RawData, isBinary: boolean): void
  ping(data: Buffer): void
  pong(): void
  broke(error: Error): void
  /** @param code of the client's close frame; 1006 without one */
  disconnected(code: number): void
}

/** Closes of ws itself, for what broke the WebSocket protocol, in our codes: 1009 or 1008 alone would tell a client to
 *  come back and send the same again. */
const violations = new Map<number, PeerCode>([
  [1002, 'BAD_FRAME'],
  [1007, 'BAD_FRAME'],
  [1008, 'FRAME_TOO_LARGE'],
  [1009, 'FRAME_TOO_LARGE'],
])

export class ProtocolSocket extends WebSocket {
  listener: SocketListener | null = null
  /** Released when it has closed. */
  place: Place | null = null

  // Told directly: listeners of its own for each event would take 250 bytes of every socket.
  override emit(event: string | symbol, ...values: unknown[]): boolean {
    const { listener } = this
    if (listener === null) return super.emit(event, ...values)
    switch (event) {
      case 'message':
        listener.message(values[0] as RawData, values[1] as boolean)
        break
      case 'ping':
        listener.ping(values[0] as Buffer)
        break
      case 'pong':
        listener.pong()
        break
      case 'error':
        listener.broke(values[0] as Error)
        break
      case 'close':
        listener.disconnected(values[0] as number)
        this.place?.release()
    }
    return super.listenerCount(event) > 0 ? super.emit(event, ...values) : true
  }

  // ws gives a reason, if only an empty one, when it answers a client's close frame; none when it refuses a frame.
  override close(code?: number, reason?: string | Buffer): void {
    const violation = reason === undefined && code !== undefined ? violations.get(code) : undefined
    if (violation === undefined) super.close(code, reason)
    else super.close(closeCodeOf(violation), closeReason({ code: violation, message: peerCodes[violation].meaning }))
  }
}
