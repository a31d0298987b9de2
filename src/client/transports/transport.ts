// What carries frames between the client and the server. Three ways, the same frames on each: see websocket.ts,
// event-stream.ts and long-poll.ts.
import type { Retry } from '../../protocol/codes.ts'
import type { ClientFrame, ErrorEvent, ServerFrame } from '../../protocol/messages.ts'

/** From the best to what always works. */
export type TransportName = 'websocket' | 'sse' | 'long-poll'

/** Why a transport ended. */
export interface Loss {
  /** What the server said of it, by a frame, a status with a body, or a close code; null: nothing, the link broke. */
  readonly error: ErrorEvent | null
  /** What the close code's range or the status asks for; `now` for a link that broke. */
  readonly retry: Retry
}

export interface TransportListener {
  /** Every frame of the server in order; `welcome` is the first. */
  onFrame(frame: ServerFrame): void
  /** Once, and nothing after it. Not called after `close`. */
  onLost(loss: Loss): void
}

export interface TransportOptions {
  /** Base address of the service: `https://tide.example.com/base`; http or https. */
  readonly url: URL
  /** A JWT: goes in the first frame, or in `Authorization: Bearer`. */
  readonly token: string
  readonly listener: TransportListener
  /** The frames that enter all subscriptions and channels from where they stand now, for a transport that keeps nothing between two
   *  requests. */
  readonly entries: () => readonly ClientFrame[]
}

export interface Transport {
  readonly name: TransportName
  /** Sends after `welcome`, in order. `auth` renews the token. What cannot be delivered ends in `onLost`. */
  send(frame: ClientFrame): void
  /** Ends it, and tells the server that this client goes; or, with `comesBack`, lets it keep for a while what it keeps of a client whose
   *  link broke: its place among those who are present. */
  close(comesBack?: boolean): void
}

export type OpenTransport = (options: TransportOptions) => Transport
