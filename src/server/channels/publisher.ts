// From what somebody sends to a message in the relay: may they, how large is it, how often, and after what.
import { randomUUID } from 'node:crypto'
import type { Position } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Caller, SendRequest } from './door.ts'
import type { ChannelPermission } from './guards/permission.ts'
import { type ChannelName, channelKey, noStamp, type Published, type Stamp } from './message.ts'
import { sendRefused } from './refusals.ts'
import type { ChannelRelay } from './relay/channel-relay.ts'
import type { ChannelRules } from './rules.ts'
import { SendRate, SendRates, type SendVerdict } from './send-rate.ts'

export interface PublisherOptions {
  readonly relay: ChannelRelay
  readonly rules: ChannelRules
  /** Where this node's stream stands. */
  readonly where: () => Stamp
  /** Resolves when the stream is known to move: what was revoked is known here. @throws UNAVAILABLE when it stands still */
  readonly untilMoving: () => Promise<void>
  /** @throws TXID_INVALID, WAIT_TIMEOUT */
  readonly waitForTransaction: (xid64: bigint) => Promise<Position>
  /** Steady milliseconds. */
  readonly now: () => number
  /** Milliseconds since 1970. */
  readonly wallNow: () => number
}

/** A sender's messages are given to the relay one after the other, and not awaited there. */
export interface SendTurn {
  /** Resolves when the one before was given to it, or will not be. */
  readonly before: Promise<void>
  next(): void
}

const maxEventLength = 255
const maxKeyLength = 255

export class Publisher {
  readonly #options: PublisherOptions
  /** Of senders who are in no channel: by subject and topic. */
  readonly #rates = new SendRates()

  constructor(options: PublisherOptions) {
    this.#options = options
  }

  /** How fast a member may send. */
  rateOf(channel: ChannelName): SendRate {
    return new SendRate(this.#options.rules.of(channel).rate)
  }

  /** Resolves when the message is in the relay.
   *  @param rate of the sender in this channel; null: of its subject
   *  @param turn among the sender's messages; null: it sends one
   *  @throws SEND_REFUSED, RATE_LIMITED, PAYLOAD_TOO_LARGE, BAD_FRAME, TXID_INVALID, WAIT_TIMEOUT, UNAVAILABLE, TooFast */
  async publish(
    caller: Caller,
    channel: ChannelName,
    permission: ChannelPermission,
    request: SendRequest,
    rate: SendRate | null,
    turn: SendTurn | null,
  ): Promise<Published> {
    const { relay, rules, where, untilMoving, waitForTransaction, wallNow } = this.#options
    const rule = rules.of(channel)
    const { event, payload, isBinary, to, idempotencyKey, after } = request
    assertShape(request)
    const bytes = Buffer.byteLength(payload)
    if (bytes > rule.maxPayloadBytes)
      throw new TidegateError(
        'PAYLOAD_TOO_LARGE',
        `the payload has ${bytes} bytes; the rule allows ${rule.maxPayloadBytes}`,
      )
    await this.#pass(caller, channel, rate)
    if (after !== null) await waitForTransaction(after)
    if (channel.isPrivate) await untilMoving()
    if (turn !== null) await turn.before
    // Looked at after all waiting, in the turn in which the stamp is taken.
    if (!permission.may('send', 'broadcast')) throw sendRefused(channel)
    const user = subjectOf(caller)
    const key = idempotencyKey === null ? null : JSON.stringify([caller.principal.role, user, idempotencyKey])
    const published = relay.publish(
      {
        channel,
        id: randomUUID(),
        event,
        payload,
        isBinary,
        sender: { user, connection: caller.connection },
        sentAtMs: wallNow(),
        to,
        // From a public channel nobody can be shut out: it waits for no rows, unless the sender names some.
        stamp: channel.isPrivate || after !== null ? where() : noStamp,
        walIndex: null,
      },
      { history: rule.history, idempotency: key === null ? null : { key, ms: rule.idempotencyMs } },
    )
    turn?.next()
    return published
  }

  async #pass(caller: Caller, channel: ChannelName, rate: SendRate | null): Promise<void> {
    const { now, rules } = this.#options
    const key = JSON.stringify([caller.principal.role, subjectOf(caller), channelKey(channel)])
    const verdict: SendVerdict = rate === null ? this.#rates.ask(key, rules.of(channel).rate, now()) : rate.ask(now())
    if (verdict.kind === 'take') {
      if (verdict.waitMs > 0) await new Promise(resolve => setTimeout(resolve, verdict.waitMs))
      return
    }
    const { perSecond, burst } = rules.of(channel).rate
    const message = `more than ${perSecond} messages per second, and ${burst} at once, to ${JSON.stringify(channel.topic)}`
    if (verdict.kind === 'close') throw new TooFast('RATE_LIMITED', message, { retryAfterMs: 5000 })
    throw new TidegateError('RATE_LIMITED', message, { retryAfterMs: verdict.retryAfterMs })
  }
}

/** It was told often enough: its place in the channel ends. */
export class TooFast extends TidegateError {}

function assertShape({ event, idempotencyKey }: SendRequest): void {
  if (event === '' || event.length > maxEventLength)
    throw new TidegateError('BAD_FRAME', `the name of an event has 1 to ${maxEventLength} characters`)
  if (idempotencyKey !== null && (idempotencyKey === '' || idempotencyKey.length > maxKeyLength))
    throw new TidegateError('BAD_FRAME', `an idempotency key has 1 to ${maxKeyLength} characters`)
}

export function subjectOf({ principal }: Caller): string | null {
  const { sub } = principal.claims
  return typeof sub === 'string' ? sub : null
}
