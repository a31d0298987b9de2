// The events of a channel as JSON text, as every wire has them.
import type { GapCode } from '../../protocol/codes.ts'
import { gapCodes } from '../../protocol/codes.ts'
import type { ChannelMessage, Draft } from './message.ts'
import type { PresenceEntry } from './presence/presence.ts'

/** @returns a MessageEvent; the payload's text goes in as it came */
export function messageJson(message: Draft | ChannelMessage): string {
  const { id, event, payload, isBinary, sender, sentAtMs, to } = message
  const { user, connection } = sender
  const from =
    user === null && connection === null
      ? 'null'
      : `{"user":${JSON.stringify(user)},"connection":${JSON.stringify(connection)}}`
  const target = to === null ? '' : `,"to":${JSON.stringify(to)}`
  const body = `"${isBinary ? 'binary' : 'payload'}":${payload}`
  return `{"id":"${id}","event":${JSON.stringify(event)},${body},"sender":${from},"sentAt":"${iso(sentAtMs)}"${target}}`
}

export const gapJson = (code: GapCode, missed: number | null): string =>
  JSON.stringify({ code, reason: gapCodes[code], missed })

/** @returns a PresenceMember */
const memberJson = ({ ref, key, user, connection, meta, sinceMs }: PresenceEntry): string =>
  `{"ref":${JSON.stringify(ref)},"key":${JSON.stringify(key)},"user":${JSON.stringify(user)},"connection":${JSON.stringify(connection)},"meta":${meta},"since":"${iso(sinceMs)}"}`

/** @returns a list of PresenceMember */
export const listJson = (entries: Iterable<PresenceEntry>): string => `[${[...entries].map(memberJson).join(',')}]`

/** @param here null where there are more than are listed */
export const hereJson = (here: Iterable<PresenceEntry> | null, count: number): string =>
  here === null ? `{"count":${count}}` : `{"here":${listJson(here)},"count":${count}}`

export interface PresenceChange {
  readonly joined: readonly PresenceEntry[]
  readonly updated: readonly PresenceEntry[]
  readonly left: readonly PresenceEntry[]
}

export function changeJson(change: PresenceChange, count: number): string {
  const parts = (['joined', 'updated', 'left'] as const)
    .filter(name => change[name].length > 0)
    .map(name => `"${name}":${listJson(change[name])},`)
  return `{${parts.join('')}"count":${count}}`
}

const iso = (ms: number): string => new Date(ms).toISOString()
