// Every refusal Tidegate can give, on one line each: its HTTP status, what the client should do, and what it means.
// The ranges of WebSocket close codes tell a client that knows no single code what to do next.

import type { clientCodes } from './client-codes.ts'
import type { OperatorCode } from './operator-codes.ts'

/** What a client does after a refusal or a close. */
export type Retry = 'now' | 'later' | 'never' | 'token'

export interface CodeEntry {
  /** HTTP status on SSE, long-poll and the HTTP endpoints. */
  readonly status: number
  readonly retry: Retry
  /** One sentence: what it means. */
  readonly meaning: string
  /** One sentence: what to do. */
  readonly remedy: string
}

// Bundlers leave its texts out of pages, which use none of them.
/* @__NO_SIDE_EFFECTS__ */
const entry = (status: number, retry: Retry, meaning: string, remedy: string): CodeEntry => ({
  status,
  retry,
  meaning,
  remedy,
})

/** Codes a peer (a browser, an SDK, curl) can meet. */
export const peerCodes = {
  BAD_FRAME: entry(
    400,
    'never',
    'A frame or body is not JSON of the published shape.',
    'Send frames as docs/protocol.md describes.',
  ),
  FRAME_TOO_LARGE: entry(
    413,
    'never',
    'A frame or body is larger than the limit.',
    'Send smaller frames; the limit is MAX_FRAME_BYTES.',
  ),
  RATE_LIMITED: entry(
    429,
    'later',
    'This connection sends more frames than it may.',
    'Wait retryAfterMs, then send fewer.',
  ),
  TOO_MANY_SUBSCRIPTIONS: entry(
    429,
    'never',
    'This connection holds as many subscriptions as it may.',
    'Unsubscribe some, or open another connection.',
  ),
  TOO_MANY_CONNECTIONS: entry(
    503,
    'later',
    'This node holds as many connections as it may.',
    'Come back after retryAfterMs; raise MAX_CONNECTIONS, or add a node.',
  ),
  ORIGIN_REFUSED: entry(
    403,
    'never',
    'The Origin header names a page that is not on the allow-list.',
    'Add the origin to ALLOWED_ORIGINS.',
  ),
  NOT_FOUND: entry(404, 'never', 'There is nothing at this address.', 'See docs/protocol.md for the addresses.'),
  METHOD_NOT_ALLOWED: entry(
    405,
    'never',
    'This address does not take this method.',
    'See docs/protocol.md for the methods.',
  ),
  TOKEN_MISSING: entry(
    401,
    'token',
    'No token came before the handshake time ended.',
    'Send Authorization: Bearer, a ticket, or an auth frame.',
  ),
  TOKEN_INVALID: entry(
    401,
    'token',
    'The token is malformed, wrongly signed, or of another algorithm.',
    'Mint a token with the configured key and algorithm.',
  ),
  TOKEN_EXPIRED: entry(
    401,
    'token',
    'The token has expired.',
    'Renew the token and send it in an auth frame, or connect again.',
  ),
  TICKET_INVALID: entry(
    401,
    'token',
    'The ticket is unknown, used, expired, or bound to another origin.',
    'Ask POST /v1/tickets for a new one.',
  ),
  ROLE_REFUSED: entry(
    403,
    'never',
    'The token names a database role that JWT_ROLES does not list, that does not exist, or that the server may not take.',
    "Use a listed role, or add it to JWT_ROLES and grant it to the server's login.",
  ),
  TABLE_UNKNOWN: entry(
    404,
    'never',
    'There is no such table, or it is not tracked.',
    'Check the name; run tidegate track <table>.',
  ),
  TABLE_REFUSED: entry(403, 'never', 'The role may not SELECT this table.', 'GRANT SELECT on the table to the role.'),
  TABLE_UNSUPPORTED: entry(
    400,
    'never',
    'Views, foreign, unlogged, temporary and inheritance-parent tables cannot be followed.',
    'Subscribe to an ordinary or partitioned table.',
  ),
  COLUMN_UNKNOWN: entry(
    400,
    'never',
    'A filter or select names a column that the table does not have or the role may not SELECT.',
    'Name columns that the role may read.',
  ),
  NO_PRIMARY_KEY: entry(
    400,
    'never',
    'The table has no primary key, so its rows cannot be named.',
    'Add a primary key.',
  ),
  KEY_NOT_READABLE: entry(
    403,
    'never',
    'The role may not SELECT the primary key of the table.',
    'GRANT SELECT on the key columns to the role.',
  ),
  IDENTITY_INSUFFICIENT: entry(
    409,
    'never',
    'The replica identity of the table lacks columns that its policies or this filter read.',
    'Run the statement in the message.',
  ),
  INDEX_NOT_READABLE: entry(
    409,
    'never',
    "The server's login cannot read a table whole, because row-level security would filter it.",
    'Run tidegate track <table> as an administrator.',
  ),
  POLICY_UNSUPPORTED: entry(
    409,
    'never',
    'A policy uses a construct that cannot be judged in the stream yet.',
    'The message names the policy and the construct; see docs/authorization.md.',
  ),
  CLAIM_INVALID: entry(
    403,
    'never',
    "A policy cannot be evaluated with this token's claims; for instance sub is no UUID.",
    'Mint a token whose claims fit the policies.',
  ),
  FILTER_INVALID: entry(
    400,
    'never',
    "A filter does not parse, or its value does not fit the column's type.",
    'See docs/protocol.md for the grammar.',
  ),
  FILTER_TOO_COMPLEX: entry(
    400,
    'never',
    'A filter is longer or nested deeper than the limit.',
    'Simplify it; the limits are in docs/configuration.md.',
  ),
  FILTER_UNSUPPORTED: entry(
    400,
    'never',
    'A filter compares in a way that only Postgres could decide: by a collation other than C, or a type without exact comparison here.',
    'Compare for equality, or give the column the C collation.',
  ),
  ORDER_UNSUPPORTED: entry(
    400,
    'never',
    'A live query cannot be ordered by this column exactly, or changes were asked for in an order.',
    'The message says what to do: order by another column, select it, or add a limit.',
  ),
  POSITION_INVALID: entry(
    400,
    'never',
    'A position is not one that this service issued.',
    'Leave the position out to begin with a fresh snapshot.',
  ),
  TXID_INVALID: entry(
    400,
    'never',
    'A transaction id is not one that pg_current_xact_id() gives.',
    'Send {"txid": "<pg_current_xact_id()>"}.',
  ),
  WAIT_TIMEOUT: entry(504, 'later', 'The transaction did not end within the time.', 'Ask again once it has committed.'),
  SNAPSHOT_TOO_LARGE: entry(
    413,
    'never',
    'The first rows of the query, or the answer of a long-poll, are more than the limit.',
    'Filter the query; the limit is SNAPSHOT_MAX_ROWS.',
  ),
  MEMBERSHIP_TOO_LARGE: entry(
    413,
    'never',
    'A membership table holds more rows that decide for this reader than the limit.',
    'Narrow the policy, or raise MEMBERSHIP_MAX_ROWS.',
  ),
  BUSY: entry(503, 'later', 'The server takes no new snapshots right now.', 'Come back after retryAfterMs.'),
  UNAVAILABLE: entry(
    503,
    'later',
    'The server cannot reach the database or is not ready.',
    'Come back after retryAfterMs.',
  ),
  INTERNAL: entry(
    500,
    'later',
    "Something failed that should not; it is in the server's log.",
    'Come back after retryAfterMs; report it if it stays.',
  ),
  GOING_AWAY: entry(503, 'now', 'This node is shutting down.', 'Connect again after retryAfterMs.'),
  HEARTBEAT_MISSED: entry(408, 'now', 'The peer was silent for two heartbeats.', 'Connect again and resume.'),
  SLOW_CONSUMER: entry(503, 'now', 'The peer did not take its data for too long.', 'Connect again and resume.'),
  UNSUBSCRIBED_TABLE_CHANGED: entry(
    409,
    'now',
    'The table, its policies or its privileges changed so that the subscription ended.',
    'Subscribe again; the answer says what is wrong, if anything.',
  ),
  ALREADY_SUBSCRIBED: entry(
    409,
    'never',
    'This connection already holds a subscription of the same query, and delta frames name only the query.',
    'Use the subscription that is there; share it among listeners.',
  ),
  POLICY_FAILED: entry(
    500,
    'later',
    'Postgres is asked for this query, and a policy raised an error for this reader.',
    'The message has the SQLSTATE, the log of Postgres its text; mend the policy, or the claims.',
  ),
  POLICY_SLOW: entry(
    504,
    'later',
    'Postgres is asked for this query, and did not answer in time.',
    'Make the policies faster, filter the query, or raise ASKED_TIMEOUT_MS.',
  ),
  ASKED_TOO_MANY: entry(
    503,
    'later',
    'Postgres is asked for this table on behalf of as many readers as it may be.',
    'Write the policies so that they compile, or raise ASKED_MAX_AUDIENCES_PER_TABLE.',
  ),
  ASKED_TOO_LARGE: entry(
    413,
    'never',
    'Postgres is asked for this query, and it has more rows than the limit.',
    'Filter the query, raise ASKED_MAX_ROWS, or write the policies so that they compile.',
  ),
  INDEX_FULL: entry(
    503,
    'later',
    'This node holds as many rows that decide for its readers as it may.',
    'Come back after retryAfterMs; add a node, or raise MEMBERSHIP_INDEX_MAX_ROWS.',
  ),
  REBALANCED: entry(
    503,
    'now',
    'Connections are being spread over the nodes, and another one is to take this one.',
    'Connect again at once and resume.',
  ),
  CHANNELS_OFF: entry(
    501,
    'never',
    'The database has no realtime.messages, whose policies guard channels.',
    'Run tidegate migrate.',
  ),
  TOPIC_INVALID: entry(
    400,
    'never',
    'A topic is empty, longer than 255 characters, or holds control characters.',
    'Name it like room:42.',
  ),
  CHANNEL_REFUSED: entry(
    403,
    'never',
    'No policy on realtime.messages lets this reader SELECT from this topic, or it is not public.',
    'CREATE POLICY ... ON realtime.messages FOR SELECT, as docs/guide/channel-policies.md shows; a public topic takes a rule.',
  ),
  CHANNEL_CLOSED: entry(
    403,
    'never',
    'This reader may not be in the channel any more: a membership, a policy or the rule of its topic changed.',
    'Nothing, if that was meant; else look at the policies on realtime.messages.',
  ),
  SEND_REFUSED: entry(
    403,
    'never',
    'No policy on realtime.messages lets this sender INSERT into this topic.',
    'CREATE POLICY ... ON realtime.messages FOR INSERT, as docs/guide/channel-policies.md shows.',
  ),
  PAYLOAD_TOO_LARGE: entry(
    413,
    'never',
    "A message, or what a member tells of itself, is larger than the channel's rule allows.",
    'Send less, or raise maxPayloadBytes (presence: maxMetaBytes) in the rule.',
  ),
  PRESENCE_OFF: entry(400, 'never', "The channel's rule allows no presence.", 'Give the rule a presence entry.'),
  HISTORY_OFF: entry(400, 'never', "The channel's rule keeps no history.", 'Give the rule a history entry.'),
  KICKED: entry(
    403,
    'later',
    'An operator ended this connection, or its place in this channel.',
    'Come back after retryAfterMs, unless the user was told not to.',
  ),
  TOKEN_REVOKED: entry(401, 'token', 'The token was revoked.', 'Sign in again for another token.'),
  TOKEN_OUTDATED: entry(
    401,
    'token',
    'An operator asked for newer claims of this user, and the token was issued before that.',
    'Fetch a new token, and send it in an auth frame or connect again.',
  ),
  NOT_JOINED: entry(
    409,
    'never',
    'A send or track names no channel that this connection is in: it was not joined, refused, or left.',
    'Join it first; if it has just ended, an error with its id said why.',
  ),
  PARAMETER_INVALID: entry(
    400,
    'never',
    'A parameter in the URL of a channel is unknown, stands twice, or has a value that does not fit.',
    'See docs/protocol.md for the parameters.',
  ),
  STREAM_UNKNOWN: entry(
    404,
    'now',
    'Frames were sent to a stream that is over, never was, or is of another subject.',
    'Open a new stream and resume.',
  ),
  PRIVATE_ONLY: entry(
    403,
    'never',
    "Supabase's clients may not use public channels here.",
    'Ask for a private channel, `config: { private: true }`, or unset SUPABASE_PRIVATE_ONLY.',
  ),
  ADDRESS_TOO_MANY: entry(
    429,
    'later',
    "As many connections came from this client's address (of IPv6: its /64) as may at a time.",
    'Close some, or come back after retryAfterMs; raise MAX_CONNECTIONS_PER_ADDRESS, and set TRUSTED_PROXIES where a proxy stands before the node.',
  ),
  USER_TOO_MANY: entry(
    429,
    'later',
    'This user has as many connections as one may.',
    'Close some (other tabs or devices), or come back after retryAfterMs; raise MAX_CONNECTIONS_PER_USER.',
  ),
  SNAPSHOT_SLOW: entry(
    504,
    'later',
    'The first rows of this query took longer than SNAPSHOT_TIMEOUT_MS, and Postgres was told to stop.',
    'Filter the query, or index what it and its policies read; EXPLAIN it as the role. Each time it is slow again the client waits longer.',
  ),
} satisfies Record<string, CodeEntry>

/** Why a client is told to start over with a fresh snapshot. */
export const resyncCodes = {
  WINDOW_PASSED: 'The position is older than the retained window.',
  EPOCH_CHANGED: 'The replication slot was lost or recreated, or this is another database.',
  QUERY_CHANGED: 'The position belongs to another query, role, claims or policy.',
  INPUTS_CHANGED:
    'Memberships that decide this query changed in a way that names no row, moved too many rows, could not be followed in time, or may hide rows of a snapshot or delta that was half sent.',
  POLICY_CHANGED: 'The table, a policy or a privilege changed.',
  ASKED_FORGOTTEN: 'Postgres is asked for this query, and what it answered at the position is not remembered here.',
  HISTORY_PASSED: 'The position in the channel is older than the history that its rule keeps.',
  HISTORY_LOST: 'The history of the channel was lost with Redis, or begun anew.',
} as const

/** Why messages of a channel did not reach a member, and will not. */
export const gapCodes = {
  MESSAGES_LOST:
    'Messages were lost on their way between nodes, or sent while the client was away; this channel keeps no history.',
  MESSAGES_DROPPED: "The client took messages too slowly, and the channel's rule keeps only the newest.",
} as const

/** Notes that come with a subscription and refuse nothing. */
export const warningCodes = {
  NO_POLICY: 'Row-level security is on and no policy applies to this role: the query is empty, as SELECT is.',
  NO_ROW_SECURITY: 'Row-level security is off: every row goes to whoever may SELECT the table.',
  POLICY_ASKED:
    'A policy cannot be judged in the stream: Postgres is asked, and what it grants or revokes is noticed a moment later.',
} as const

/** What to do about a warning, if it was not meant so. */
export const warningRemedies = {
  NO_POLICY: 'CREATE POLICY ... ON the table FOR SELECT TO the role.',
  NO_ROW_SECURITY: 'ALTER TABLE ... ENABLE ROW LEVEL SECURITY, unless the table is public.',
  POLICY_ASKED: 'Write the policy as docs/authorization.md shows, unless a moment does not matter.',
} satisfies Record<keyof typeof warningCodes, string>

export type PeerCode = keyof typeof peerCodes
export type ResyncCode = keyof typeof resyncCodes
export type GapCode = keyof typeof gapCodes
export type WarningCode = keyof typeof warningCodes
export type ClientCode = keyof typeof clientCodes
export type Code = PeerCode | OperatorCode | ClientCode

const closeBase: Record<Retry, number> = { now: 4000, later: 4100, never: 4200, token: 4300 }

/** The WebSocket close code of a refusal: 40xx come back now, 41xx come back later, 42xx do not come back, 43xx renew
 *  the token. The last two digits number the code within its range, in the order of `peerCodes`. */
export function closeCodeOf(code: PeerCode): number {
  const { retry } = peerCodes[code]
  const range = (Object.keys(peerCodes) as PeerCode[]).filter(key => peerCodes[key].retry === retry)
  return closeBase[retry] + range.indexOf(code)
}

/** What a client does after a close code it need not know. */
export function retryOfClose(closeCode: number): Retry {
  if (closeCode >= 4300 && closeCode < 4400) return 'token'
  if (closeCode >= 4200 && closeCode < 4300) return 'never'
  if (closeCode >= 4100 && closeCode < 4200) return 'later'
  return 'now'
}
