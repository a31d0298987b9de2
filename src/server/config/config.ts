// Every setting Tidegate takes, in one table: the environment names, the flags, the help and docs/configuration.md are
// read from it. It is parsed once, at the door; everything inside trusts the readonly values.
import { z } from 'zod'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { type ChannelEntry, parseChannelEntries } from './channel-entries.ts'
import { readChannelEntries } from './channel-entries-file.ts'
import { keyAlgorithms, secretAlgorithms, secretsIn, verificationOf } from './config-tokens.ts'
import { refuseMixtures } from './config-unsafe.ts'
import { type AddressRange, parseRanges } from './trusted-proxies.ts'

export type OptionGroup =
  | 'database'
  | 'listener'
  | 'tokens'
  | 'supabase'
  | 'relay'
  | 'stream'
  | 'channels'
  | 'limits'
  | 'log'

export interface Option<T> {
  readonly group: OptionGroup
  /** What fits, as it stands in the help, the docs and the refusal: `a whole number from 0 to 65535`. */
  readonly type: string
  /** As it would be typed; null: nothing, which `help` explains. */
  readonly default: string | null
  readonly isRequired: boolean
  /** A secret is never printed, not even when it is refused. */
  readonly isSecret: boolean
  readonly help: string
  readonly schema: z.ZodType<T, string | undefined>
}

interface OptionType<T> {
  readonly type: string
  readonly isSecret?: boolean
  readonly schema: z.ZodType<T, string>
}

const MiB = 1024 * 1024

const matching = (type: string, pattern: RegExp): OptionType<string> => ({ type, schema: z.string().regex(pattern) })
const oneOf = <const T extends string>(...values: readonly T[]): OptionType<T> => ({
  type: `one of ${values.join(', ')}`,
  schema: z.enum(values),
})
const yesOrNo: OptionType<boolean> = {
  type: 'one of 1, 0, true, false',
  schema: z.enum(['1', '0', 'true', 'false']).transform(text => text === '1' || text === 'true'),
}
const integer = (min: number, max: number): OptionType<number> => ({
  type: `a whole number from ${min} to ${max}`,
  schema: z
    .string()
    .regex(/^\d{1,16}$/)
    .transform(Number)
    .pipe(z.number().min(min).max(max)),
})
const bytes = (max = 1024 * 1024 * MiB) => integer(1024, max)
const milliseconds = (min: number, max = 86_400_000) => integer(min, max)
const url = (type: string, isSecret: boolean, ...protocols: readonly string[]): OptionType<string> => ({
  type,
  isSecret,
  schema: z.string().refine(text => URL.canParse(text) && protocols.includes(new URL(text).protocol)),
})
const list = <T>(type: string, item: z.ZodType<T, string>): OptionType<readonly T[]> => ({
  type,
  schema: z
    .string()
    .transform(text =>
      text
        .split(',')
        .map(part => part.trim())
        .filter(part => part !== ''),
    )
    .pipe(z.array(item)),
})

const postgresUrl = url('a URL as postgres://user:password@host:5432/database', true, 'postgres:', 'postgresql:')
const redisUrl: OptionType<string> = {
  type: 'a URL as redis://host:6379, rediss://host:6379, redis+sentinel://host:26379,host:26379/master or redis+cluster://host:6379,host:6379',
  isSecret: true,
  schema: z.string().regex(/^rediss?(\+sentinel|\+cluster)?:\/\/[^/\s]+(\/\S*)?$/),
}
const operatorTokens: OptionType<readonly string[]> = {
  type: 'a text of at least 16 characters of ASCII without spaces, or a JSON list of at most 10, the newest first',
  isSecret: true,
  schema: z
    .string()
    .transform(secretsIn)
    .pipe(
      z
        .array(z.string().regex(/^[\x21-\x7e]{16,1000}$/))
        .min(1)
        .max(10),
    ),
}
const secrets: OptionType<readonly string[]> = {
  type: 'a text of at least 32 bytes, or a JSON list of at most 10, the newest first',
  isSecret: true,
  schema: z.string().transform(secretsIn),
}
const host = matching('an address or host name', /^[^\s/]{1,255}$/)
const roleName = z.string().regex(/^[^\s"]{1,63}$/)
const origin = z.string().refine(text => text === '*' || (URL.canParse(text) && new URL(text).origin === text))

/** A setting Postgres shows to policies, and the claim that fills it. */
export interface ClaimSetting {
  /** As `current_setting` takes it: `app.tenant_id`. */
  readonly setting: string
  readonly claim: string
}

const claimSetting: z.ZodType<ClaimSetting, string> = z
  .string()
  // The claims themselves are set by Tidegate: a setting of theirs would let one claim stand in for all.
  .regex(/^(?!request\.jwt)[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)+\s*=\s*[^\s=]+$/i)
  .transform(text => {
    const [setting = '', claim = ''] = text.split('=').map(part => part.trim())
    return { setting, claim }
  })

/** A key that is no JWT, and the database role it stands for. */
export interface ApiKey {
  readonly key: string
  readonly role: string
}

const maxApiKeys = 100
const apiKey: z.ZodType<ApiKey, string> = z
  .string()
  .regex(/^sb_[\w-]{13,252}\s*=\s*(?!sb_)[^\s"=]{1,63}$/)
  .transform(text => {
    const [key = '', role = ''] = text.split('=').map(part => part.trim())
    return { key, role }
  })

const channelEntries: OptionType<readonly ChannelEntry[]> = {
  type: 'a JSON list as [{"pattern": "room:*", "history": {"length": 100, "age": "24h"}}]',
  schema: z.string().transform((text, context) => {
    const { entries, refusals } = parseChannelEntries(text)
    if (entries !== undefined) return entries
    for (const refusal of refusals) context.issues.push({ code: 'custom', input: text, params: { refusal } })
    return z.NEVER
  }),
}

function build<T, D>(group: OptionGroup, type: OptionType<T>, schema: z.ZodType<D, string | undefined>, help: string) {
  return { group, type: type.type, isSecret: type.isSecret ?? false, help, schema }
}
const required = <T>(group: OptionGroup, type: OptionType<T>, help: string): Option<T> => ({
  ...build(group, type, z.string().pipe(type.schema) as z.ZodType<T, string | undefined>, help),
  default: null,
  isRequired: true,
})
const optional = <T>(group: OptionGroup, type: OptionType<T>, help: string): Option<T | null> => ({
  ...build(group, type, z.union([z.undefined().transform(() => null), type.schema]), help),
  default: null,
  isRequired: false,
})
const option = <T>(group: OptionGroup, type: OptionType<T>, text: string | number, help: string): Option<T> => ({
  ...build(group, type, z.string().default(String(text)).pipe(type.schema), help),
  default: String(text),
  isRequired: false,
})

const tables = list(
  'table names with commas between: messages,sales.orders',
  z.string().regex(/^[^\s".]+(\.[^\s".]+)?$/),
)
const origins = list('origins with commas between (https://app.example.com), or *', origin)
const roles = list('role names with commas between', roleName)
const algorithms = list(
  `names with commas between, of ${[...secretAlgorithms, ...keyAlgorithms].join(', ')}`,
  z.enum([...secretAlgorithms, ...keyAlgorithms]),
)
const addressRanges: z.ZodType<readonly AddressRange[], string> = z.string().transform((text, context) => {
  const ranges = parseRanges(text)
  if (ranges !== null) return ranges
  context.issues.push({ code: 'custom', input: text })
  return z.NEVER
})
const proxies = list(
  'addresses and networks with commas between (10.0.0.5, 10.1.0.0/16, fd00::/8), loopback or private',
  addressRanges,
)
const claimSettings = list(
  'setting=claim pairs with commas between: app.tenant_id=tenant,app.user_id=sub',
  claimSetting,
)

const apiKeyList = list(
  `at most ${maxApiKeys} key=role pairs with commas between, each key once and of 16 characters or more: sb_publishable_...=anon,sb_secret_...=service_role`,
  apiKey,
)
const apiKeys: OptionType<readonly ApiKey[]> = {
  ...apiKeyList,
  isSecret: true,
  schema: apiKeyList.schema.refine(
    keys => keys.length <= maxApiKeys && new Set(keys.map(({ key }) => key)).size === keys.length,
  ),
}

/** The table. The flag and the key of a setting follow from its name: `DATABASE_URL`, `--database-url`, `databaseUrl`. */
// biome-ignore format: one option, one look
export const options = {
  DATABASE_URL: required('database', postgresUrl,
    'The database to follow, as a login with REPLICATION. tidegate dev starts one of its own when this is not set.'),
  DATABASE_REPLICATION_URL: optional('database', postgresUrl,
    'The same database and login, without a pooler in between: for the WAL, the slot, heartbeats and the catalog. Set it where DATABASE_URL leads to a pooler in transaction mode (PgBouncer, Supavisor); first snapshots and questions go through that.'),
  ADMIN_DATABASE_URL: optional('database', postgresUrl,
    'The same database as a login that owns the tables: for migrate, track, untrack and remove, without a pooler. Without it they use DATABASE_REPLICATION_URL or DATABASE_URL.'),
  DATABASE_POOL: option('database', integer(4, 1000), 4, 'Connections of this node. One is kept for heartbeats and the look at the slot, one for the catalog; the rest is shared by snapshots, reads of memberships, and questions. Of all nodes, one has another one that streams the WAL.'),
  TIDEGATE_NAME: option('database', matching('a name of lower-case letters, digits and _, at most 30', /^[a-z_][a-z0-9_]{0,29}$/), 'tidegate',
    'Names the publication and begins the name of the slot. Two services on one database need two names.'),
  TRACK: option('database', tables, '', 'Tables to track at the start, as tidegate track does; empty: those already tracked.'),

  HOST: option('listener', host, '127.0.0.1', 'Address to listen on; 0.0.0.0 for every interface.'),
  PORT: option('listener', integer(0, 65535), 4000, 'Port to listen on; 0 takes a free one and prints it.'),
  ALLOWED_ORIGINS: option('listener', origins, '', 'Web pages that may connect; empty: only pages from this host and port; *: all. What sends no Origin (curl, servers) is not asked.'),
  TRUSTED_PROXIES: option('listener', proxies, '', 'Proxies and balancers before this node: what they say of their clients in X-Forwarded-For, -Proto and -Host, or Forwarded, is believed. loopback: of this machine; private: of private networks. Empty: nobody is.'),
  DRAIN_DELAY_MS: optional('listener', milliseconds(0, 600_000), 'How long a server that was told to stop still serves, its /ready red, so that the balancer notices and sends nobody new. Not set: 5000 if /ready was asked within the last minute, else 0. With the time for its clients to leave it must fit into the time until it is killed: 30 s in Kubernetes, 10 s under Docker.'),
  DRAIN_SPREAD_MS: optional('listener', milliseconds(0, 600_000), 'Clients of a server that stops are told to come back one after the other, evenly over this time. Not set: 1 ms for each, at least 1000, at most 20000.'),
  DRAIN_TIMEOUT_MS: option('listener', milliseconds(0, 600_000), 3000, 'How long clients may take to leave a server that stops, all at once; then they are cut off.'),
  OPERATOR_TOKEN: optional('listener', operatorTokens, 'Opens the addresses for operators (docs/security.md) to whoever sends it as Authorization: Bearer; without it there are none. Several, so that it can be replaced: each opens them.'),
  ADMIN_PORT: optional('listener', integer(0, 65535), 'A port of its own for the addresses for operators, /health and /ready; those for operators are then nowhere else. 0 takes a free one and prints it.'),
  ADMIN_HOST: optional('listener', host, 'Address to listen on for ADMIN_PORT; not set: HOST.'),

  JWT_SECRET: optional('tokens', secrets, 'The shared secret that signs tokens. Set this or JWT_JWKS_URL. Several, so that it can be replaced: each verifies, the first signs.'),
  JWT_JWKS_URL: optional('tokens', url('an http or https URL', false, 'https:', 'http:'), 'Where the public keys that verify tokens are published. Set this or JWT_SECRET.'),
  JWT_ALGORITHMS: option('tokens', algorithms, '', 'Signatures to accept; empty: HS256 with JWT_SECRET, RS256,ES256,EdDSA with JWT_JWKS_URL. The token never chooses.'),
  JWT_ISSUER: optional('tokens', matching('a text', /./), 'What the claim iss must be; not checked when not set.'),
  JWT_AUDIENCE: optional('tokens', matching('a text', /./), 'What the claim aud must hold; not checked when not set.'),
  JWT_ROLE_CLAIM: option('tokens', matching('the name of a claim', /^\S+$/), 'role', 'The claim that names the database role.'),
  DEFAULT_ROLE: option('tokens', { type: 'a role name', schema: roleName }, 'anon', 'The role of a token that names none.'),
  JWT_ROLES: option('tokens', roles, 'anon,authenticated', 'The roles a token may name; the login of DATABASE_URL must be a member of each.'),
  CLAIM_SETTINGS: option('tokens', claimSettings, '', 'Settings that policies read with current_setting, filled from claims.'),
  TICKET_MS: option('tokens', milliseconds(1000, 600_000), 30_000, 'How long a ticket from POST /v1/tickets can be used.'),

  API_KEYS: option('supabase', apiKeys, '', "Keys of Supabase's clients that are no JWTs, each with the role it stands for, which JWT_ROLES must list."),
  SUPABASE_PRIVATE_ONLY: option('supabase', yesOrNo, '0', "Whether Supabase's clients are refused public channels; else whoever has a valid token or key may join and send to any of them."),

  REDIS_URL: optional('relay', redisUrl, 'Joins the nodes of a deployment, and holds what they share; Redis 6.2 or later. Without it there is one node, and all is in its memory. TLS, also to Sentinels and a Cluster: `rediss`, with `?ssl_ca_certs=`, `ssl_certfile=` and `ssl_keyfile=` (files) where the system does not know the authority, or `ssl_cert_reqs=none`. Of Sentinels with a password of their own: `?sentinelPassword=`.'),
  RELAY_MAX_BYTES: option('relay', bytes(), 128 * MiB, 'Bytes of the Stream in Redis from which nodes read, and from which one that starts fills its window; a large commit, and what came in the last five seconds, may take four times as much.'),
  RELAY_HOLD_MS: option('relay', milliseconds(0, 600_000), 5000, 'How long a commit stays in the slot after Redis has stored it: a Redis that lost its newest part is refilled from there.'),
  RELAY_DURABILITY: option('relay', oneOf('none', 'replica', 'aof'), 'none', 'What must hold a commit before the slot is acknowledged, besides Redis itself: a replica of it, or its append-only file (Redis 7.2 and later).'),

  WINDOW_MAX_BYTES: option('stream', bytes(), 64 * MiB, 'Commits kept for clients that come back, in bytes of WAL messages.'),
  WINDOW_MAX_AGE_MS: option('stream', milliseconds(0), 300_000, 'How long a commit is kept for clients that come back.'),
  SLOT_MAX_BYTES: option('stream', bytes(), 1024 * MiB, "WAL the slot may hold back; past it the slot is dropped and clients start over: the database's disk comes first."),
  SPOOL_BYTES: option('stream', bytes(), 32 * MiB, 'A transaction larger than this goes through a file instead of memory.'),
  BEACON_MS: option('stream', milliseconds(100, 600_000), 5000, 'How often a message travels through the WAL: it moves an idle slot and measures lag.'),
  MAX_HELD_MS: option('stream', milliseconds(100, 600_000), 10_000, 'How long events of a subscription may be held while rows of a grant are fetched; past it, resync.'),
  AUDIENCE_GRACE_MS: option('stream', milliseconds(0), 60_000, 'How long a query nobody follows stays loaded.'),
  SNAPSHOT_MAX_ROWS: option('stream', integer(1, 100_000_000), 100_000, 'Rows a live query may begin with.'),
  LIMIT_MAX_ROWS: option('stream', integer(1, 10_000), 1000, 'The largest limit of a live query.'),
  WINDOWS_MAX_BYTES: option('stream', bytes(), 256 * MiB, 'Rows that are held for queries with a limit, all together; past it new ones are refused for a while.'),
  SNAPSHOT_CHUNK_ROWS: option('stream', integer(1, 100_000), 2000, 'Rows of a snapshot read and sent at a time.'),
  SNAPSHOT_CONCURRENCY: option('stream', integer(1, 1000), 8, 'Snapshots read at a time, as far as DATABASE_POOL has room; the others wait, and users take turns.'),
  SNAPSHOT_QUEUE: option('stream', integer(1, 1_000_000), 10_000, 'Snapshots that may wait for their turn; past it whoever waits for most, or comes last, is told BUSY.'),
  SNAPSHOT_TIMEOUT_MS: option('stream', milliseconds(10, 600_000), 30_000, 'How long Postgres may take for one part of a snapshot; past it its reader is told SNAPSHOT_SLOW.'),
  MEMBERSHIP_MAX_ROWS: option('stream', integer(1, 100_000_000), 100_000, 'Rows of a membership table that may decide for one reader.'),
  MEMBERSHIP_INDEX_MAX_ROWS: option('stream', integer(1, 1_000_000_000), 5_000_000, 'Rows held that decide for the readers of this node, about 100 bytes each; past it new subscriptions that need some are refused.'),
  ASKED_MAX_AUDIENCES_PER_TABLE: option('stream', integer(1, 100_000), 100, 'Queries of a table, each of one role and claims, for which Postgres is asked because a policy does not compile.'),
  ASKED_MAX_ROWS: option('stream', integer(1, 1_000_000), 10_000, 'Rows of a query for which Postgres is asked.'),
  ASKED_TIMEOUT_MS: option('stream', milliseconds(10, 600_000), 1000, 'How long Postgres may take for one question; past it its readers are told POLICY_SLOW.'),
  ASKED_CONCURRENCY: option('stream', integer(2, 1000), 4, 'Such questions at a time, as far as DATABASE_POOL has room; half of them are kept for quick ones.'),
  RECHECK_MS: option('stream', milliseconds(100, 600_000), 2000, 'How often Postgres is asked for a whole query anew, whatever has been committed.'),
  RING_MAX_BYTES: option('stream', bytes(), 64 * MiB, 'Commits kept only because a snapshot being read may not see them; past it new snapshots are refused for a while.'),
  RESUME_WAIT_MS: option('stream', milliseconds(0, 600_000), 30_000, 'How long a client that comes back waits for a restarted stream to reach its position; past it, it is told to come back later.'),

  CHANNELS: option('channels', channelEntries, '[]', 'What differs from the default for which topics, see docs/guide/channel-rules.md. The first entry whose pattern matches a topic holds.'),
  CHANNELS_FILE: optional('channels', matching('the path of a file with what CHANNELS takes', /./), 'Where the same list stands, instead of CHANNELS.'),

  HEARTBEAT_MS: option('limits', milliseconds(100, 600_000), 25_000, 'How often clients hear from the server, and it from them; a peer silent for two is closed.'),
  HANDSHAKE_MS: option('limits', milliseconds(100, 600_000), 10_000, 'How long a WebSocket may be open without a token.'),
  MAX_CONNECTIONS: option('limits', integer(1, 1_000_000), 10_000, 'Connections of this node; fewer, if the process may not open so many files (DESCRIPTORS_SHORT).'),
  MAX_CONNECTIONS_PER_ADDRESS: option('limits', integer(0, 1_000_000), 0, 'Of those, connections from one address (of IPv6: one /64); 0: as many as there are. An office, or a proxy that TRUSTED_PROXIES does not name, is one address.'),
  MAX_CONNECTIONS_PER_USER: option('limits', integer(0, 1_000_000), 0, 'Of those, connections of one subject and role; 0: as many as there are. Tokens without a subject are of no user.'),
  MAX_SUBSCRIPTIONS: option('limits', integer(1, 100_000), 100, 'Subscriptions of one connection.'),
  MAX_FRAME_BYTES: option('limits', bytes(16 * MiB), 65_536, 'Size of a frame or a body that a client sends.'),
  MAX_FRAMES_PER_SECOND: option('limits', integer(1, 100_000), 50, 'Frames of one connection.'),
  MAX_FILTER_LENGTH: option('limits', integer(1, 1_000_000), 4096, 'Characters of a filter.'),
  MAX_FILTER_DEPTH: option('limits', integer(1, 100), 8, 'How deep and() and or() may be nested.'),
  MAX_FILTER_TERMS: option('limits', integer(1, 10_000), 200, 'Comparisons in a filter; each value of in.() is one.'),
  SEND_QUEUE_BYTES: option('limits', bytes(1024 * MiB), MiB, 'Bytes waiting for one slow connection; past it live queries fold and changes catch up later.'),

  LOG_LEVEL: option('log', oneOf('debug', 'info', 'warn', 'error', 'silent'), 'info', 'What goes into the log on standard error.'),
  OTEL_EXPORTER_OTLP_ENDPOINT: optional('log', url('an http or https URL', true, 'https:', 'http:'), 'A collector of OpenTelemetry traces, as http://127.0.0.1:4318: the way of commits is sent to it, by OTLP over HTTP. Its packages are installed beside Tidegate (TRACING_MISSING says how).'),
  OTEL_SERVICE_NAME: option('log', matching('a text', /./), 'tidegate', 'What traces name this service.'),
  TRACES_PER_SECOND: option('log', integer(1, 100), 10, 'Commits traced; those beyond are counted.'),
} as const

export type OptionName = keyof typeof options
export const optionNames = Object.keys(options) as OptionName[]

type CamelCase<S extends string> = S extends `${infer Head}_${infer Tail}`
  ? `${Lowercase<Head>}${Capitalize<CamelCase<Tail>>}`
  : Lowercase<S>

/** The parsed values of some options: `{ databaseUrl: string, port: number }`. */
export type OptionValues<Name extends OptionName> = {
  readonly [K in Name as CamelCase<K>]: z.output<(typeof options)[K]['schema']>
}
/** What `start` takes. `jwtAlgorithms` is never empty; exactly one of `jwtSecret` and `jwtJwksUrl` is set; `channels` are those of the
 *  file if there is one. */
export type Config = OptionValues<OptionName>

export type Environment = Readonly<Record<string, string | undefined>>
/** By key: `{ databaseUrl: 'postgres://...' }`, as commander gives them. They win over the environment. */
export type Flags = Readonly<Record<string, unknown>>

/** `--database-url` */
export const flagOf = (name: string): string => `--${name.toLowerCase().replaceAll('_', '-')}`
/** `databaseUrl` */
export const keyOf = (name: string): string =>
  name.toLowerCase().replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())

/** Where sessions of one's own are to be had. */
export const sessionUrlOf = (given: OptionValues<'DATABASE_URL' | 'DATABASE_REPLICATION_URL'>): string =>
  given.databaseReplicationUrl ?? given.databaseUrl

/** Reads every option. @throws CONFIG_INVALID that lists each option that does not fit, with its value and what fits */
export function loadConfig(env: Environment, flags: Flags = {}): Config {
  const config = loadOptions(optionNames, env, flags)
  const nameOf = (name: OptionName): string => nameAsGiven(name, flags)
  refuseStrangeRoles(config, nameOf)
  const verification = verificationOf(config, nameOf)
  refuseMixtures(config, nameOf, env.NODE_ENV === 'production')
  return { ...config, ...verification, channels: readChannelEntries(config, nameOf) }
}

/** Reads the named options only, so that a command asks for nothing it does not need.
 *  @throws CONFIG_INVALID as `loadConfig` */
export function loadOptions<Name extends OptionName>(
  names: readonly Name[],
  env: Environment,
  flags: Flags = {},
): OptionValues<Name> {
  const texts = Object.fromEntries(names.map(name => [name, textOf(name, env, flags)]))
  const parsed = z.object(Object.fromEntries(names.map(name => [name, options[name].schema]))).safeParse(texts)
  if (!parsed.success) {
    const wrong = new Set(parsed.error.issues.map(issue => refusalOf(issue, texts, flags)))
    throw invalid([...wrong])
  }
  // Each value came out of its own option's schema, under its own key; the type cannot follow that through the loop.
  return Object.fromEntries(names.map(name => [keyOf(name), parsed.data[name]])) as OptionValues<Name>
}

/** Its clients would be refused one by one. */
function refuseStrangeRoles(
  { apiKeys, jwtRoles }: OptionValues<'API_KEYS' | 'JWT_ROLES'>,
  nameOf: (name: OptionName) => string,
): void {
  const strange = new Set(apiKeys.map(({ role }) => role).filter(role => !jwtRoles.includes(role)))
  if (strange.size === 0) return
  const names = [...strange].map(role => JSON.stringify(role)).join(', ')
  throw invalid([`${nameOf('API_KEYS')} has keys for ${names}, which JWT_ROLES does not list; add it there`])
}

/** An empty text is no value: compose files and unit files pass the names of unset variables along. */
function textOf(name: OptionName, env: Environment, flags: Flags): string | undefined {
  const flag = flags[keyOf(name)]
  const text = typeof flag === 'string' ? flag : env[name]
  if (text === undefined || text.trim() === '') return undefined
  // The spaces of a secret belong to it: trimmed, it would verify nothing that others signed.
  return options[name].isSecret ? text : text.trim()
}

const nameAsGiven = (name: OptionName, flags: Flags): string =>
  typeof flags[keyOf(name)] === 'string' ? flagOf(name) : name

function refusalOf(issue: z.core.$ZodIssue, texts: Environment, flags: Flags): string {
  const name = String(issue.path[0]) as OptionName
  const { type, isSecret } = options[name]
  const text = texts[name]
  // Of a long value: which part of it.
  if (issue.code === 'custom' && issue.params?.refusal !== undefined)
    return `${nameAsGiven(name, flags)}: ${issue.params.refusal}`
  if (text === undefined) return `${name} is not set; set it, or pass ${flagOf(name)}: it takes ${type}`
  const value = isSecret ? 'a value that does not fit (not shown)' : JSON.stringify(text)
  return `${nameAsGiven(name, flags)} is ${value}; it takes ${type}`
}

const invalid = (refusals: readonly string[]): TidegateError => new TidegateError('CONFIG_INVALID', refusals.join('\n'))
