// What everything behind a subscription shares: the stream's state on this node and the means to read beside it.
import type { Reach } from './reach.ts'
import type { StreamParts } from './stream-parts.ts'
import type { Times } from './times.ts'

export interface Stream extends StreamParts {
  readonly times: Times
  readonly reach: Reach
}
