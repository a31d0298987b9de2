// What is published to nodes and kept in histories: bytes that are read without a look into the payload.
//
//   message   m1 <epoch> <number> <former epochs>\n<header>\n<payload>
//   presence  p1 <epoch> <number> <count>\n{"joined": [...], "updated": [...], "left": [...]}
//   probe     o1 <token>
//
// The first line of a message is written by the script that numbers it; in a history stands `<header>\n<payload>` alone, since its ID
// is the number. Former epochs are `<epoch>:<last number>,...`, the newest first, or `-`. A header is JSON: {"i": id, "e": event,
// "b": 1 if binary, "u": user, "c": connection, "t": sent at, "to": target, "s": [epoch, LSN in hex], "w": WAL index}; what is null
// or 0 is left out. Text is UTF-8; a payload has no line breaks, nor has a header.
import type { ChannelMessage, ChannelName, Draft, Former, Target } from '../message.ts'
import type { PresenceDiff } from '../presence/presence.ts'

export type Heard =
  | { readonly kind: 'message'; readonly message: ChannelMessage }
  | { readonly kind: 'presence'; readonly diff: PresenceDiff }
  | { readonly kind: 'probe'; readonly token: string }

interface Header {
  readonly i: string
  readonly e: string
  readonly b?: 1
  readonly u?: string
  readonly c?: string
  readonly t: number
  readonly to?: Target
  readonly s: readonly [epoch: string, lsn: string]
  readonly w?: number
}

type Entries = Pick<PresenceDiff, 'joined' | 'updated' | 'left'>

/** As the history keeps it, and the script publishes it behind a first line of its own. */
export function encodeDraft(draft: Draft): string {
  const { id, event, isBinary, sender, sentAtMs, to, stamp, walIndex, payload } = draft
  const header: Header = {
    i: id,
    e: event,
    ...(isBinary ? { b: 1 } : {}),
    ...(sender.user === null ? {} : { u: sender.user }),
    ...(sender.connection === null ? {} : { c: sender.connection }),
    t: sentAtMs,
    ...(to === null ? {} : { to }),
    s: [stamp.epoch, stamp.lsn.toString(16)],
    ...(walIndex === null ? {} : { w: walIndex }),
  }
  return `${JSON.stringify(header)}\n${payload}`
}

/** @param text `<header>\n<payload>`, from `at` on @throws RangeError, SyntaxError */
export function decodeMessage(
  text: Buffer,
  at: number,
  place: {
    readonly channel: ChannelName
    readonly epoch: string
    readonly seq: bigint
    readonly before: readonly Former[]
  },
): ChannelMessage {
  const end = text.indexOf(newline, at)
  if (end < 0) throw new RangeError('a message has no payload')
  // What encodeDraft wrote: only servers of this deployment can write here.
  const header = JSON.parse(text.toString('utf8', at, end)) as Header | null
  if (!Array.isArray(header?.s)) throw new RangeError('a message has no header')
  return {
    channel: place.channel,
    id: header.i,
    event: header.e,
    payload: text.toString('utf8', end + 1, text.length),
    isBinary: header.b === 1,
    sender: { user: header.u ?? null, connection: header.c ?? null },
    sentAtMs: header.t,
    to: header.to ?? null,
    stamp: { epoch: header.s[0], lsn: BigInt(`0x${header.s[1]}`) },
    walIndex: header.w ?? null,
    epoch: place.epoch,
    seq: place.seq,
    before: place.before,
  }
}

/** @returns null when it is of a kind or version that this release does not know @throws RangeError, SyntaxError when damaged */
export function decodeHeard(channel: ChannelName, text: Buffer): Heard | null {
  const version = text.toString('latin1', 0, 3)
  if (version === 'o1 ') return { kind: 'probe', token: text.toString('latin1', 3, text.length) }
  if (version !== 'm1 ' && version !== 'p1 ') return null
  const end = text.indexOf(newline, 3)
  const [epoch, number, last] = text.toString('latin1', 3, end < 0 ? text.length : end).split(' ')
  if (end < 0 || epoch === undefined || number === undefined || last === undefined)
    throw new RangeError('what was published has no first line')
  const seq = BigInt(number)
  if (version === 'm1 ')
    return {
      kind: 'message',
      message: decodeMessage(text, end + 1, { channel, epoch, seq, before: parseFormers(last) }),
    }
  const entries = JSON.parse(text.toString('utf8', end + 1, text.length)) as Entries | null
  if (!Array.isArray(entries?.joined)) throw new RangeError('presence has no entries')
  return { kind: 'presence', diff: { epoch, seq, ...entries, count: Number(last) } }
}

/** As a script publishes it that puts the parts together. */
export const encodePresence = ({ epoch, seq, count, joined, updated, left }: PresenceDiff): string =>
  `p1 ${epoch} ${seq} ${count}\n${JSON.stringify({ joined, updated, left })}`

export const encodeProbe = (token: string): string => `o1 ${token}`

const none: readonly Former[] = []
let lastParsed: { readonly text: string; readonly formers: readonly Former[] } = { text: '-', formers: none }

/** @param text `<epoch>:<last number>,...` or `-`: mostly the same as the last time */
export function parseFormers(text: string): readonly Former[] {
  if (text === '-' || text === '') return none
  if (lastParsed.text !== text) {
    const formers = text.split(',').map(each => {
      const [epoch = '', seq = ''] = each.split(':')
      return { epoch, seq: BigInt(seq) }
    })
    lastParsed = { text, formers }
  }
  return lastParsed.formers
}

const newline = 10
