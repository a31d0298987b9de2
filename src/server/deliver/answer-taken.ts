// Whether the answer to a poll is still being taken: one that is not is held in memory, up to `longPollMaxBytes` of it.
import type { ServerResponse } from 'node:http'
import type { Services } from './services.ts'

export class AnswerTaken {
  /** Bytes that the socket was given, and when it was given the last of them. */
  #handedOver = -1
  #takenAt = 0
  /** Nothing of it was taken for too long. */
  isGivenUp = false

  /** @returns true when nothing of it was taken for too long, which is told in the log */
  isStalled(
    { headersSent, socket }: ServerResponse,
    now: number,
    { limits, departures }: Pick<Services, 'limits' | 'departures'>,
  ): boolean {
    if (!headersSent || socket === null) return false
    if (this.#handedOver !== socket.bytesWritten) {
      this.#handedOver = socket.bytesWritten
      this.#takenAt = now
      return false
    }
    if (now - this.#takenAt < limits.slowConsumerMs) return false
    departures.gaveUp('SLOW_CONSUMER', 'long-poll')
    this.isGivenUp = true
    return true
  }
}

/** How a request ended whose answer was all: null where its client went before it had it. */
export const answeredBy = ({ writableFinished }: ServerResponse): 'ANSWERED' | null =>
  writableFinished ? 'ANSWERED' : null
