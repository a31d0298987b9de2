// What the channels of one client need of it.
import type { Join } from '../../protocol/messages.ts'
import type { Feed, FeedHandle } from '../feed.ts'
import type { OfflineSends } from './outbox.ts'

export type ChannelName = Pick<Join, 'topic' | 'private'>

export interface ChannelsOptions {
  /** Enters a feed, and sees to it that the client is connected. */
  readonly add: (feed: Feed) => FeedHandle
  /** A request with the client's token. @param path behind `/v1/` @throws TidegateError with the server's code */
  readonly request: (path: string) => Promise<Response>
  readonly report: (error: Error) => void
  /** What waits in each channel while the client is offline, or `refuse`: it is rejected with CLIENT_OFFLINE. */
  readonly offlineSends?: OfflineSends | 'refuse' | undefined
  /** What the server takes as one frame, its MAX_FRAME_BYTES; a larger one would end the connection. Default: 65,536. */
  readonly maxFrameBytes?: number | undefined
}
