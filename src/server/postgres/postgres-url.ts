// How a connection string of Postgres is read: its TLS as libpq means it. node-postgres takes `require` for `verify-full`, and a later
// release of it will not; here the meaning is fixed, and what cannot be kept is refused.
import { readFileSync } from 'node:fs'
import net from 'node:net'
import { type ConnectionOptions, getCACertificates } from 'node:tls'
import pg from 'pg'
import { TidegateError } from '../../protocol/tidegate-error.ts'

/** What node-postgres takes. */
export interface PostgresConnection {
  /** Without what is said beside it. */
  readonly connectionString: string
  readonly ssl: ConnectionOptions | false
  /** TLS is tried, and done without where the server has none: `PreferringClient` asks it first. */
  readonly prefersTls: boolean
  readonly enableChannelBinding: boolean
  /** `-c` settings of the session: those of the connection string, then those given here. */
  readonly options: string
}

type Mode = 'disable' | 'prefer' | 'require' | 'verify-ca' | 'verify-full'

const modes: readonly string[] = ['disable', 'prefer', 'require', 'verify-ca', 'verify-full'] satisfies Mode[]
/** Read here, and of no use to node-postgres. */
const ownParameters = [
  'sslmode',
  'sslrootcert',
  'sslcert',
  'sslkey',
  'sslpassword',
  'channel_binding',
  'ssl',
  'options',
]
/** To leave one of these out would weaken what the connection string asks for. */
const refused = ['sslcrl', 'sslcrldir', 'ssl_max_protocol_version', 'requirepeer', 'require_auth', 'gssencmode']

/** @param options `-c` settings of ours, which win
 *  @param name of the option, for the refusal
 *  @throws CONFIG_INVALID, without the password: a mode that there is not, a file that cannot be read, a promise that cannot be kept */
export function connectionOf(databaseUrl: string, options = '', name = 'DATABASE_URL'): PostgresConnection {
  const invalid = (what: string): TidegateError => new TidegateError('CONFIG_INVALID', `${name}: ${what}`)
  if (!URL.canParse(databaseUrl)) throw invalid('it is no URL as postgres://user:password@host:5432/database')
  const url = new URL(databaseUrl)
  const given = url.searchParams
  const binding = given.get('channel_binding') ?? 'prefer'
  if (!['disable', 'prefer', 'require'].includes(binding))
    throw invalid(`channel_binding is ${binding}; it takes disable, prefer or require`)
  for (const parameter of refused)
    if (given.has(parameter)) throw invalid(`${parameter} is not kept here; leave it out, and use sslmode=verify-full`)
  const mode = modeOf(given, binding === 'require', invalid)
  const files: Files = {
    rootCert: given.get('sslrootcert'),
    cert: given.get('sslcert'),
    key: given.get('sslkey'),
    password: given.get('sslpassword'),
  }
  const own = given.get('options') ?? ''
  for (const parameter of ownParameters) given.delete(parameter)
  return {
    connectionString: url.href,
    ssl: mode === 'disable' ? false : tlsOf(mode, files, invalid),
    prefersTls: mode === 'prefer',
    enableChannelBinding: binding !== 'disable',
    options: [own, options].filter(text => text !== '').join(' '),
  }
}

type Invalid = (what: string) => TidegateError

function modeOf(given: URLSearchParams, bindingIsRequired: boolean, invalid: Invalid): Mode {
  const rootCert = given.get('sslrootcert')
  const ssl = given.get('ssl')
  const said =
    given.get('sslmode') ?? (ssl === 'true' || ssl === '1' ? 'require' : null) ?? process.env.PGSSLMODE ?? null
  // As libpq has it: the system's authorities sign for anybody, so that only the name tells who it is.
  if (rootCert === 'system' && said !== null && said !== 'verify-full')
    throw invalid(`sslrootcert=system goes with sslmode=verify-full only, not with ${said}`)
  if (said === null) {
    if (rootCert === 'system') return 'verify-full'
    if (rootCert !== null || given.has('sslcert') || given.has('sslkey'))
      throw invalid('it names certificates and no sslmode; add sslmode=verify-full')
    return bindingIsRequired ? 'verify-full' : 'disable'
  }
  if (said === 'no-verify') return 'require'
  if (!modes.includes(said)) throw invalid(`sslmode is ${said}; it takes ${modes.join(', ')}`)
  const mode = said as Mode
  if (mode === 'disable' && bindingIsRequired) throw invalid('channel_binding=require needs TLS; sslmode is disable')
  // node-postgres binds where the server offers it, and does not insist. A verified certificate keeps out the same stranger.
  if (bindingIsRequired) return 'verify-full'
  if (mode === 'verify-ca' && rootCert === null)
    throw invalid('sslmode=verify-ca takes sslrootcert=<file>; with the authorities of the system use verify-full')
  return mode === 'require' && rootCert !== null ? 'verify-ca' : mode
}

interface Files {
  readonly rootCert: string | null
  readonly cert: string | null
  readonly key: string | null
  readonly password: string | null
}

function tlsOf(mode: Exclude<Mode, 'disable'>, files: Files, invalid: Invalid): ConnectionOptions {
  const read = (parameter: string, path: string): string => {
    try {
      return readFileSync(path, 'utf8')
    } catch (cause) {
      throw invalid(`${parameter}: ${path} cannot be read: ${(cause as Error).message}`)
    }
  }
  if ((files.cert === null) !== (files.key === null)) throw invalid('sslcert and sslkey go together')
  const own =
    files.cert === null || files.key === null
      ? {}
      : {
          cert: read('sslcert', files.cert),
          key: read('sslkey', files.key),
          ...(files.password === null ? {} : { passphrase: files.password }),
        }
  if (mode === 'prefer' || mode === 'require') return { ...own, rejectUnauthorized: false }
  const isSystem = files.rootCert === null || files.rootCert === 'system'
  const ca = isSystem
    ? [...getCACertificates('default'), ...getCACertificates('system')]
    : read('sslrootcert', files.rootCert)
  return { ...own, ca, ...(mode === 'verify-ca' ? { checkServerIdentity: () => undefined } : {}) }
}

/** A client that asks the server whether it has TLS, where TLS is only preferred: one more connection for each. */
export class PreferringClient extends pg.Client {
  readonly #prefersTls: boolean

  constructor(config?: pg.ClientConfig & { readonly prefersTls?: boolean }) {
    super(config)
    this.#prefersTls = config?.prefersTls === true
  }

  override connect(): Promise<pg.Client>
  override connect(callback: (error: Error) => void): void
  override connect(callback?: (error: Error) => void): Promise<pg.Client> | undefined {
    const connected = this.#prefersTls ? this.#settle().then(() => super.connect()) : super.connect()
    if (callback === undefined) return connected
    connected.then(() => (callback as () => void)(), callback)
    return undefined
  }

  async #settle(): Promise<void> {
    if (await hasTls(this.host, this.port)) return
    const client = this as unknown as { ssl: unknown; connection: { ssl: unknown } }
    client.ssl = false
    client.connection.ssl = false
  }
}

/** The same connection, with TLS or without, as the server has it.
 *  @throws what connecting throws */
export async function settled(connection: PostgresConnection): Promise<PostgresConnection> {
  if (!connection.prefersTls) return connection
  const { host, port } = new pg.Client({ connectionString: connection.connectionString })
  return { ...connection, prefersTls: false, ssl: (await hasTls(host, port)) ? connection.ssl : false }
}

const askTimeoutMs = 10_000

/** Whether the server has TLS. Source: PostgreSQL manual, Message Formats, SSLRequest: it answers with one byte, `S` or `N`. */
function hasTls(host: string, port: number): Promise<boolean> {
  if (host.startsWith('/')) return Promise.resolve(false)
  const { promise, resolve, reject } = Promise.withResolvers<boolean>()
  const socket = net.connect({ host, port, timeout: askTimeoutMs })
  socket.once('connect', () => socket.write(Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])))
  socket.once('data', ([answer]) => resolve(answer === 0x53))
  socket.once('timeout', () => reject(new Error('timeout expired')))
  socket.once('error', reject)
  socket.once('close', () => reject(new Error('Connection terminated unexpectedly')))
  return promise.finally(() => socket.destroy())
}

/** By the code of Node's TLS, or of Postgres, or the message of node-postgres: what may be done. */
const advice: readonly (readonly [pattern: RegExp, advice: string])[] = [
  [
    /ERR_TLS_CERT_ALTNAME_INVALID/,
    'the certificate is for another name: connect by a name that it has, or have it made for this one; sslmode=verify-ca does not ask for the name',
  ],
  [/CERT_HAS_EXPIRED/, "the server's certificate has expired: renew it there"],
  [/CERT_NOT_YET_VALID/, "the server's certificate is not valid yet: compare the clocks of both machines"],
  [
    /SELF_SIGNED_CERT|UNABLE_TO_GET_ISSUER|UNABLE_TO_VERIFY_LEAF|CERT_UNTRUSTED|CERT_SIGNATURE_FAILURE/,
    "no authority that is known here has signed the server's certificate: name the one that did by sslrootcert=<file>",
  ],
  [/does not support SSL/, 'the server has no TLS: set ssl = on there, or sslmode=disable here'],
  [/no encryption|SSL off/, 'the server takes only TLS from here: add sslmode=require, or better verify-full'],
  [
    /valid client certificate|client certificate/i,
    'the server asks for a certificate: name it by sslcert=<file>&sslkey=<file>',
  ],
  [
    /tlsv1 alert|alert unknown ca|alert certificate/i,
    'the server does not take the certificate of sslcert: its ssl_ca_file must have signed it',
  ],
  [
    /SCRAM-SHA-256-PLUS|channel binding/i,
    'the password could not be bound to the certificate: add channel_binding=disable',
  ],
]

/** Why there is no connection, and what may be done. */
export function reasonOf(error: unknown): string {
  const { message = '', code } = error as { message?: string; code?: unknown }
  const reason = message === '' ? String(code) : message
  const found = advice.find(([pattern]) => pattern.test(`${String(code)} ${message}`))
  return found === undefined ? reason : `${reason}; ${found[1]}`
}
