// What one connection has asked of its channels and is not done: in order, and not faster than it may ask. Made when it asks for
// the first time.
import type { ChannelSubscription } from '../channels/door.ts'
import { type ChannelName, channelKey } from '../channels/message.ts'
import { doAsk } from './ask.ts'
import { ChannelLines } from './channel-lines.ts'
import type { Services } from './services.ts'
import type { Effect, SessionEvent } from './session-parts.ts'
import { fullBucket, isInDebt, oweToken, type TokenBucket } from './token-bucket.ts'

type Asked = Extract<Effect, { do: 'ask' }>

export class ChannelWork {
  readonly #services: Pick<Services, 'limits' | 'now'>
  readonly #lines: ChannelLines
  readonly #bucket: TokenBucket

  /** @param onRoom called when more may be asked again, unless only time was waited for */
  constructor(services: Pick<Services, 'limits' | 'now'>, onRoom: () => void) {
    this.#services = services
    this.#lines = new ChannelLines(onRoom)
    this.#bucket = fullBucket(services.limits.frameBurst, services.now())
  }

  /** A frame came that asks a channel for something. It is never one too many: past the limit the socket is not read. */
  count(): void {
    const { limits, now } = this.#services
    oweToken(this.#bucket, now(), limits.framesPerSecond, limits.frameBurst)
  }

  get isTooMuch(): boolean {
    const { limits, now } = this.#services
    return this.#lines.isFull || isInDebt(this.#bucket, now(), limits.framesPerSecond, limits.frameBurst)
  }

  /** Runs behind what was asked of the channel before. @param run never rejects */
  inTurn(channel: ChannelName, run: () => Promise<void> | void): void {
    this.#lines.add(channelKey(channel), { chars: 0, isSend: false, run: () => run()?.then(() => nothing) })
  }

  /** @param channelOf whom to ask, when its turn has come */
  ask(asked: Asked, channelOf: () => ChannelSubscription | null, tell: (event: SessionEvent) => void): void {
    const { id, channel, ref, ask } = asked
    const chars = ask.type === 'send' ? ask.request.payload.length : (ask.request?.meta.length ?? 0)
    const run = (): Promise<() => void> =>
      doAsk(channelOf(), ask).then(
        answer => () => tell({ type: 'answered', id, ref, answer }),
        (error: unknown) => () => tell({ type: 'notAnswered', id, ref, ask, error }),
      )
    this.#lines.add(channelKey(channel), { chars, isSend: ask.type === 'send', run })
  }

  /** What has not begun will not. */
  drop(): void {
    this.#lines.drop()
  }
}

const nothing = (): void => {}
