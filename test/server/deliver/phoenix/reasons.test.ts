import { SignJWT } from 'jose'
import { expect, test } from 'vitest'
import { type PeerCode, peerCodes } from '../../../../src/protocol/codes.ts'
import { canComeLater, endingOf, reasonOf } from '../../../../src/server/deliver/phoenix/reasons.ts'
import { refusalOf } from '../../../../src/server/deliver/refusal.ts'
import { createLog } from '../../../../src/server/log/log.ts'
import { createAuthenticator } from '../../../../src/server/subscribe/authenticate.ts'

/** Of each code: what a join is refused with, for `room:1` and the message `why`, and whether a rejoin can help. */
const table: Record<PeerCode, readonly [reason: string, rejoin: boolean]> = {
  BAD_FRAME: ['BAD_FRAME: why', false],
  FRAME_TOO_LARGE: ['FRAME_TOO_LARGE: why', false],
  RATE_LIMITED: ['RATE_LIMITED: why', true],
  TOO_MANY_SUBSCRIPTIONS: ['ChannelRateLimitReached: why', false],
  TOO_MANY_CONNECTIONS: ['ConnectionRateLimitReached: Too many connected users (why)', true],
  ORIGIN_REFUSED: ['ORIGIN_REFUSED: why', false],
  NOT_FOUND: ['NOT_FOUND: why', false],
  METHOD_NOT_ALLOWED: ['METHOD_NOT_ALLOWED: why', false],
  TOKEN_MISSING: ['TOKEN_MISSING: why', true],
  TOKEN_INVALID: ['MalformedJWT: The token provided is not a valid JWT (why)', true],
  TOKEN_EXPIRED: ['InvalidJWTToken: Token has expired', true],
  TICKET_INVALID: ['TICKET_INVALID: why', true],
  ROLE_REFUSED: ['ROLE_REFUSED: why', false],
  TABLE_UNKNOWN: ['TABLE_UNKNOWN: why', false],
  TABLE_REFUSED: ['TABLE_REFUSED: why', false],
  TABLE_UNSUPPORTED: ['TABLE_UNSUPPORTED: why', false],
  COLUMN_UNKNOWN: ['COLUMN_UNKNOWN: why', false],
  NO_PRIMARY_KEY: ['NO_PRIMARY_KEY: why', false],
  KEY_NOT_READABLE: ['KEY_NOT_READABLE: why', false],
  IDENTITY_INSUFFICIENT: ['IDENTITY_INSUFFICIENT: why', false],
  INDEX_NOT_READABLE: ['INDEX_NOT_READABLE: why', false],
  POLICY_UNSUPPORTED: ['POLICY_UNSUPPORTED: why', false],
  CLAIM_INVALID: ['CLAIM_INVALID: why', false],
  FILTER_INVALID: ['FILTER_INVALID: why', false],
  FILTER_TOO_COMPLEX: ['FILTER_TOO_COMPLEX: why', false],
  FILTER_UNSUPPORTED: ['FILTER_UNSUPPORTED: why', false],
  ORDER_UNSUPPORTED: ['ORDER_UNSUPPORTED: why', false],
  POSITION_INVALID: ['POSITION_INVALID: why', false],
  TXID_INVALID: ['TXID_INVALID: why', false],
  WAIT_TIMEOUT: ['WAIT_TIMEOUT: why', true],
  SNAPSHOT_TOO_LARGE: ['SNAPSHOT_TOO_LARGE: why', false],
  MEMBERSHIP_TOO_LARGE: ['MEMBERSHIP_TOO_LARGE: why', false],
  BUSY: ['BUSY: why', true],
  UNAVAILABLE: ['UnableToConnectToProject: Realtime was unable to connect to the project database (why)', true],
  INTERNAL: ['INTERNAL: why', true],
  GOING_AWAY: ['RealtimeRestarting: Realtime is restarting, please standby', true],
  HEARTBEAT_MISSED: ['HEARTBEAT_MISSED: why', true],
  SLOW_CONSUMER: ['SLOW_CONSUMER: why', true],
  UNSUBSCRIBED_TABLE_CHANGED: ['UNSUBSCRIBED_TABLE_CHANGED: why', true],
  ALREADY_SUBSCRIBED: ['ALREADY_SUBSCRIBED: why', false],
  POLICY_FAILED: ['POLICY_FAILED: why', true],
  POLICY_SLOW: ['QueryCanceled: why', true],
  ASKED_TOO_MANY: ['ASKED_TOO_MANY: why', true],
  ASKED_TOO_LARGE: ['ASKED_TOO_LARGE: why', false],
  INDEX_FULL: ['INDEX_FULL: why', true],
  REBALANCED: ['RealtimeRestarting: Realtime is restarting, please standby', true],
  CHANNELS_OFF: ['CHANNELS_OFF: why', false],
  TOPIC_INVALID: ['TOPIC_INVALID: why', false],
  CHANNEL_REFUSED: ['Unauthorized: You do not have permissions to read from this Channel topic: room:1', false],
  CHANNEL_CLOSED: ['Unauthorized: You no longer have permission to read from this Channel topic: room:1', false],
  SEND_REFUSED: ['SEND_REFUSED: why', false],
  PAYLOAD_TOO_LARGE: ['PAYLOAD_TOO_LARGE: why', false],
  PRESENCE_OFF: ['PRESENCE_OFF: why', false],
  HISTORY_OFF: ['HISTORY_OFF: why', false],
  KICKED: ['KICKED: why', true],
  TOKEN_REVOKED: ['TOKEN_REVOKED: why', true],
  TOKEN_OUTDATED: ['TOKEN_OUTDATED: why', true],
  NOT_JOINED: ['NOT_JOINED: why', false],
  PARAMETER_INVALID: ['PARAMETER_INVALID: why', false],
  STREAM_UNKNOWN: ['STREAM_UNKNOWN: why', true],
  ADDRESS_TOO_MANY: ['ConnectionRateLimitReached: Too many connected users (why)', true],
  USER_TOO_MANY: ['ConnectionRateLimitReached: Too many connected users (why)', true],
  SNAPSHOT_SLOW: ['QueryCanceled: why', true],
  PRIVATE_ONLY: ['PrivateOnly: This project only allows private channels', false],
}

test.each(Object.entries(table) as [PeerCode, (typeof table)[PeerCode]][])('[P8] %s', (code, [reason, rejoin]) => {
  expect(reasonOf({ code, message: 'why' }, 'room:1')).toBe(reason)
  expect(canComeLater(code)).toBe(rejoin)
})

test('every code is in the table', () => {
  expect(Object.keys(table).sort()).toEqual(Object.keys(peerCodes).sort())
})

test('a topic without a name has a reason of its own', () => {
  expect(reasonOf({ code: 'TOPIC_INVALID', message: 'why' }, '')).toBe(
    'TopicNameRequired: You must provide a topic name',
  )
})

test.each(['HISTORY_OFF', 'PARAMETER_INVALID'] as const)(
  'a replay that is refused with %s is told by one name',
  code => {
    const message = 'UnableToReplayMessages: Replay is not allowed for public channels'
    expect(reasonOf({ code, message }, 'room:1')).toBe(message)
  },
)

test.each([
  ['TOKEN_EXPIRED', 'Token has expired'],
  ['CHANNEL_CLOSED', 'You no longer have permission to read from this Channel topic: room:1'],
  ['RATE_LIMITED', 'Too many messages per second (why)'],
  ['KICKED', 'KICKED: why'],
  ['TOKEN_REVOKED', 'TOKEN_REVOKED: why'],
] as const)('a channel that ends with %s says so', (code, message) => {
  expect(endingOf({ code, message: 'why' }, 'room:1')).toBe(message)
})

test.each([
  [
    'another secret',
    { alg: 'HS256' },
    'another secret of thirty-two bytes',
    /^JwtSignatureError: Failed to validate JWT signature/,
  ],
  [
    'another algorithm',
    { alg: 'HS512' },
    'a secret of at least thirty-two bytes',
    /^MalformedJWT: The token provided is not/,
  ],
])('a token signed by %s is told by its own name', async (_, header, key, expected) => {
  const token = await new SignJWT({ role: 'anon' }).setProtectedHeader(header).sign(new TextEncoder().encode(key))
  const secret = 'a secret of at least thirty-two bytes'
  const authenticator = createAuthenticator({
    ...{ secrets: [secret], algorithms: ['HS256'], roleClaim: 'role', defaultRole: 'anon', now: Date.now },
  })
  const error = await authenticator.authenticate(token).catch((refused: unknown) => refused)
  expect(reasonOf(refusalOf(error, createLog('silent'), Math.random), 'room:1')).toMatch(expected)
})
