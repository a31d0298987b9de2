// The channels under torture: with a long history, with a short one, and without; in rooms whose members come and go.
import { channelPolicies } from '../../support/channel-client.ts'
import { roomsSchema } from '../../support/node.ts'

export const channelsSchema = roomsSchema + channelPolicies
export const channelTables = ['rooms', 'members', 'messages']

/** Its channel keeps all that is said in a run; keeps little; keeps nothing. */
export type RoomKind = 'kept' | 'short' | 'plain'

export interface Room {
  readonly id: number
  readonly kind: RoomKind
  readonly topic: string
}

const room = (id: number, kind: RoomKind): Room => ({ id, kind, topic: `room:${id}` })

export const rooms: readonly Room[] = [
  room(901, 'kept'),
  room(101, 'plain'),
  room(902, 'kept'),
  room(801, 'short'),
  room(102, 'plain'),
]

/** Those in which the database speaks. In the other one without a history every message has a number of its own. */
export const roomsOfSql = rooms.filter(({ id }) => id !== 102)

export const shortLength = 40

const presence = { grace: '1500ms', diff: '50ms' }
const rate = { perSecond: 1000, burst: 1000 }

export const channelRules = [
  { pattern: 'room:9*', history: { length: 100_000, age: '2h' }, presence, rate },
  { pattern: 'room:8*', history: { length: shortLength, age: '2h' }, presence, rate },
  { pattern: '*', presence, rate },
]
