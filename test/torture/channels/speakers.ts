// Those who speak over the server: each message under a key of its own, tried at any node until it is acknowledged or refused.
import { parsePosition } from '../../../src/protocol/position.ts'
import type { Random } from '../../checker/random.ts'
import { ChannelClient, type JoinedChannel, Refused } from '../../support/channel-client.ts'
import type { TorturedNode, TorturedNodes } from '../nodes.ts'
import { type Ledger, nameOf, type Place, type Said } from './ledger.ts'
import { type Room, rooms } from './world.ts'

export interface SpeakerOptions {
  readonly ledger: Ledger
  readonly nodes: TorturedNodes
  readonly random: Random
  /** Its own, and those to whom it says something alone. */
  readonly user: string
  readonly users: readonly string[]
  readonly token: string
  readonly pauseMs: number
  readonly patienceMs: number
}

/** Refused, and surely not sent. What else goes wrong may have been sent all the same. */
const refusals = ['SEND_REFUSED', 'CHANNEL_REFUSED', 'NOT_JOINED', 'WAIT_TIMEOUT', 'RATE_LIMITED']
/** It is not tried again. */
const isFinal = (code: string): boolean => code === 'SEND_REFUSED' || code === 'CHANNEL_REFUSED'

interface Sending {
  readonly said: Said
  /** Of a transaction that it shall come after. */
  readonly after: string | null
  readonly afterChange: number
  /** An attempt of it may have been heard. */
  isDoubtful: boolean
}

/** What came of an attempt: a place, or a code. */
type Outcome = Place | string

export class Speaker {
  readonly #options: SpeakerOptions

  constructor(options: SpeakerOptions) {
    this.#options = options
  }

  /** Over a socket: joins, says some things, and goes to another node. */
  async overSockets(signal: AbortSignal): Promise<void> {
    const { random, nodes, token, patienceMs, pauseMs } = this.#options
    let left: Sending | null = null
    while (!signal.aborted || left !== null) {
      const room = left?.said.room ?? random.pick(rooms)
      const node = random.pick(nodes.all)
      const { life } = node
      let client: ChannelClient | null = null
      try {
        client = await ChannelClient.open({ url: node.toClients.url }, token, patienceMs)
        const channel = await client.join(room.topic)
        for (let i = 1 + random.below(20); left !== null || (i > 0 && !signal.aborted); i--) {
          left ??= this.#sending(room, 'socket')
          const outcome = await this.#attempt(left, node, life, () => said(channel, left!, patienceMs))
          if (this.#settles(left, outcome)) left = null
          else break
          await sleep(random.below(2 * pauseMs))
        }
        if (client.failure !== null) throw client.failure
      } catch (error) {
        if (error instanceof Refused && isFinal(error.code) && left !== null && this.#settles(left, error.code))
          left = null
        else if (!(error instanceof Refused) && /nobody asked|not joined|was not asked/.test(String(error)))
          this.#options.ledger.find('wrong', `a speaker was told ${String(error)}`)
      } finally {
        client?.cut()
      }
      await sleep(100 + random.below(200))
    }
  }

  /** By POST: one message, or some in a list. */
  async overHttp(signal: AbortSignal): Promise<void> {
    const { random, pauseMs } = this.#options
    while (!signal.aborted) {
      const room = random.pick(rooms)
      const all = Array.from({ length: random.once(4) ? 2 + random.below(6) : 1 }, () => this.#sending(room, 'post'))
      await this.post(all)
      await sleep(random.below(2 * pauseMs))
    }
  }

  /** Says one thing, until it is acknowledged. */
  async mark(room: Room): Promise<Said> {
    for (;;) {
      const sending = this.#sending(room, 'post', true)
      await this.post([sending])
      if (sending.said.outcome === 'accepted') return sending.said
      await sleep(200)
    }
  }

  async post(all: readonly Sending[]): Promise<void> {
    const { random, nodes } = this.#options
    for (let left = all; left.length > 0; ) {
      const node = random.pick(nodes.all)
      const { life } = node
      for (const sending of left) this.#begin(sending, life)
      const outcomes = await this.#posted(node, left)
      if (node.life !== life) for (const { said } of left) this.#options.ledger.attempt(said, 0)
      left = left.filter((sending, place) => !this.#settles(sending, outcomes[place]!))
      if (left.length > 0) await sleep(100 + random.below(300))
    }
  }

  #sending(room: Room, way: 'socket' | 'post', isPlain = false): Sending {
    const { ledger, random, users } = this.#options
    const to = !isPlain && random.once(12) ? random.pick(users) : null
    const said = ledger.begin({ room, way, to })
    const change =
      !isPlain && random.once(4) ? ledger.changes.findLast(({ committedAt }) => committedAt !== null) : undefined
    return { said, after: change?.xid ?? null, afterChange: change?.number ?? 0, isDoubtful: false }
  }

  #begin({ said, afterChange }: Sending, life: string): void {
    const { ledger } = this.#options
    ledger.attempt(said, Math.max(ledger.floor(life, performance.now()), afterChange))
  }

  async #attempt(
    sending: Sending,
    node: TorturedNode,
    life: string,
    attempt: () => Promise<Outcome>,
  ): Promise<Outcome> {
    this.#begin(sending, life)
    const outcome = await attempt()
    // Whoever answered may have begun anew since.
    if (node.life !== life) this.#options.ledger.attempt(sending.said, sending.afterChange)
    else if (typeof outcome !== 'string') this.#options.ledger.raise(life, sending.afterChange)
    return outcome
  }

  /** @returns whether it is not to be tried again */
  #settles(sending: Sending, outcome: Outcome): boolean {
    const { ledger } = this.#options
    if (typeof outcome !== 'string') ledger.settle(sending.said, 'accepted', outcome)
    else if (isFinal(outcome)) ledger.settle(sending.said, sending.isDoubtful ? 'unknown' : 'refused')
    else {
      if (!refusals.includes(outcome)) sending.isDoubtful = true
      if (['BAD_FRAME', 'TXID_INVALID', 'PARAMETER_INVALID', 'PAYLOAD_TOO_LARGE', 'INTERNAL'].includes(outcome))
        ledger.find('wrong', `${nameOf(sending.said)} was answered with ${outcome}`)
      return false
    }
    return true
  }

  async #posted(node: TorturedNode, all: readonly Sending[]): Promise<Outcome[]> {
    const { token, patienceMs } = this.#options
    const messages = all.map(sending => messageOf(sending))
    try {
      const response = await fetch(`${node.toClients.url}/v1/channels/${encodeURIComponent(all[0]!.said.room.topic)}`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: JSON.stringify(messages.length === 1 ? messages[0] : messages),
        signal: AbortSignal.timeout(patienceMs),
      })
      const answer = (await response.json()) as Answer & { results?: readonly Answer[] }
      return (answer.results ?? all.map(() => answer)).map(outcomeOf)
    } catch {
      return all.map(() => 'closed')
    }
  }
}

interface Answer {
  readonly position?: string
  readonly code?: string
  readonly error?: { readonly code: string }
}

function outcomeOf({ position, code, error }: Answer): Outcome {
  return position === undefined ? (error?.code ?? code ?? 'closed') : placeOfNumber(position)
}

/** Of a channel without history only the low 32 bits are told. */
function placeOfNumber(position: string): Place {
  const { epoch, lsn, index } = parsePosition(position)!
  return { epoch, seq: index === 0xffff_ffff ? lsn : BigInt(index) }
}

const messageOf = ({ said, after }: Sending) => ({
  event: 'said',
  payload: { n: said.n },
  idempotencyKey: `n${said.n}`,
  ...(said.to === null ? {} : { to: { user: said.to } }),
  ...(after === null ? {} : { after }),
})

async function said(channel: JoinedChannel, sending: Sending, patienceMs: number): Promise<Outcome> {
  const { event, payload, ...more } = messageOf(sending)
  try {
    const answer = await Promise.race([channel.send(event, payload, more), sleep(patienceMs).then(() => null)])
    return answer === null ? 'closed' : placeOfNumber(answer.position)
  } catch (error) {
    return error instanceof Refused ? error.code : 'closed'
  }
}

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
