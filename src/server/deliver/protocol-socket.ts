// A WebSocket of ws that carries a session: it tells the session directly, and gives our codes to what breaks the standard.
import type { Socket } from 'node:net'
import { type RawData, WebSocket } from 'ws'
import { closeCodeOf, type PeerCode, peerCodes } from '../../protocol/codes.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Principal } from '../subscribe/subscription.ts'
import type { Carrier } from './carrier.ts'
import type { Place } from './connections.ts'
import type { Wire } from './departures.ts'
import { websocketEncoding } from './encode.ts'
import { parseClientFrame } from './frame-schema.ts'
import { closeReason, type Refusal } from './refusal.ts'
import { SendQueue } from './send-queue.ts'
import type { Services } from './services.ts'
import { SessionConnection } from './session-connection.ts'

/** @param credentials what was verified before the upgrade; see `SessionOptions` */
export function openWebSocket(
  services: Services,
  ws: ProtocolSocket,
  socket: Socket,
  credentials: Principal | TidegateError | null,
): SessionConnection {
  const { turn, limits, now } = services
  const session = new SessionConnection({
    services,
    carrier: ws,
    queue: onDrained =>
      new SendQueue({
        turn,
        socket,
        maxBytes: limits.sendQueueBytes,
        bytesOf: websocketEncoding.batch,
        now,
        onDrained,
      }),
    credentials,
  })
  ws.session = session
  return session
}

/** Closes of ws itself, for what broke the WebSocket protocol, in our codes: 1009 or 1008 alone would tell a client to
 *  come back and send the same again. */
const violations = new Map<number, PeerCode>([
  [1002, 'BAD_FRAME'],
  [1007, 'BAD_FRAME'],
  [1008, 'FRAME_TOO_LARGE'],
  [1009, 'FRAME_TOO_LARGE'],
])

/** Of RFC 6455. A page that is closed or loaded anew sends 1001: it may come back in a moment. */
const closedNormally = 1000

const noGreeting = {}

export class ProtocolSocket extends WebSocket implements Carrier {
  session: SessionConnection | null = null
  place: Place | null = null

  get what(): Wire {
    return 'WebSocket'
  }

  get encoding(): typeof websocketEncoding {
    return websocketEncoding
  }

  get isAnswering(): boolean {
    return true
  }

  get greeting(): object {
    return noGreeting
  }

  end(refusal: Refusal): void {
    this.close(closeCodeOf(refusal.code), closeReason(refusal))
  }

  // Told directly: listeners of its own for each event would take 250 bytes of every socket.
  override emit(event: string | symbol, ...values: unknown[]): boolean {
    const { session } = this
    if (session === null) return super.emit(event, ...values)
    switch (event) {
      case 'message':
        take(session, values[0] as RawData, values[1] as boolean)
        break
      // Answered here and not by ws, which would cut a flood off without a code.
      case 'ping':
        if (session.hears() && session.pays()) this.pong(values[0] as Buffer)
        break
      case 'pong':
        if (session.hears()) session.pays()
        break
      case 'error':
        session.linkFailed(values[0] as Error)
        break
      case 'close':
        session.disconnected(values[0] === closedNormally ? 'gone' : 'broken')
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

function take(session: SessionConnection, data: RawData, isBinary: boolean): void {
  if (!session.hears()) return
  try {
    if (isBinary) throw new TidegateError('BAD_FRAME', 'the frame is binary; frames are JSON text')
    session.take(parseClientFrame(data.toString()))
  } catch (error) {
    session.broke(error)
  }
}
