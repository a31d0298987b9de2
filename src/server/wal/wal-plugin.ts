// What runs on the replication connection before the copy begins, and hands every message on as the bytes it came in.
import pg from 'pg'
import type { LogicalReplicationService } from 'pg-logical-replication'
import { pinnedSettings } from '../postgres/database.ts'

export interface WalPluginOptions {
  readonly publication: string
  /** 0 switches it off. */
  readonly walSenderTimeoutMs: number
  /** Makes the slot one that standbys keep: it is from before we made them so. */
  readonly makeFailover: boolean
  /** Whether the history of this server's timeline is needed. */
  readonly needsHistory: (system: SystemIdentity) => boolean
  /** Called with the connected client, before the copy begins. */
  readonly onConnected: (client: pg.Client) => void
}

export interface SystemIdentity {
  readonly systemId: string
  readonly timeline: string
}

/** Who streams to us. */
export interface ServerIdentity extends SystemIdentity {
  /** The history file of its timeline, where it was needed and is there. */
  readonly history: string | null
  /** Why the slot could not be made one that standbys keep. */
  readonly failoverError: Error | null
}

/** The library does not export its plugin's type. */
type Plugin = Parameters<LogicalReplicationService['subscribe']>[0]

export class WalPlugin implements Plugin {
  readonly options: WalPluginOptions
  /** Known once the copy has begun. */
  server: ServerIdentity | null = null

  constructor(options: WalPluginOptions) {
    this.options = options
  }

  get name(): string {
    return 'pgoutput'
  }

  /** Pins the session, asks who the server is, and starts to stream. Resolves when the stream ends. */
  async start(client: pg.Client, slotName: string, lsn: string): Promise<unknown> {
    this.options.onConnected(client)
    const settings = { ...pinnedSettings, wal_sender_timeout: `${this.options.walSenderTimeoutMs}ms` }
    // SET wins over options in the connection string and over ALTER ROLE ... SET; a frozen holder lets go of the slot
    // after wal_sender_timeout instead of the default's minute.
    await client.query(
      Object.entries(settings)
        .map(([name, value]) => `SET ${name} = ${pg.escapeLiteral(value)}`)
        .join('; '),
    )
    const identity = await client.query<{ systemid: string; timeline: number }>('IDENTIFY_SYSTEM')
    const system = { systemId: identity.rows[0]!.systemid, timeline: String(identity.rows[0]!.timeline) }
    // Both only now: once the copy has begun, the connection takes no commands.
    const history = this.options.needsHistory(system) ? await readHistory(client, system.timeline) : null
    const failoverError = this.options.makeFailover ? await makeFailover(client, slotName) : null
    this.server = { ...system, history, failoverError }
    return client.query(startReplication(slotName, lsn, this.options.publication))
  }

  /** Never asked: once the copy has begun, the stream reads it itself. */
  parse(bytes: Buffer): Buffer {
    return bytes
  }
}

async function readHistory(client: pg.Client, timeline: string): Promise<string | null> {
  try {
    const { rows } = await client.query<{ content: string | Buffer }>(`TIMELINE_HISTORY ${timeline}`)
    return String(rows[0]!.content)
  } catch (error) {
    // 58P01 undefined_file: someone removed it. Without it nothing proves that the epoch may go on.
    if ((error as { code?: unknown }).code === '58P01') return null
    throw error
  }
}

async function makeFailover(client: pg.Client, slotName: string): Promise<Error | null> {
  try {
    await client.query(`ALTER_REPLICATION_SLOT ${pg.escapeIdentifier(slotName)} ( FAILOVER true )`)
    return null
  } catch (error) {
    // In use: the next command meets the same, and that is handled.
    return error as Error
  }
}

/** @example startReplication('tidegate_0a1b2c3d', '0/0', 'Übung "1"')
 *  Source: PostgreSQL manual, Streaming Replication Protocol and Logical Streaming Replication Parameters */
export function startReplication(slotName: string, lsn: string, publication: string): string {
  // A list of identifiers inside a string: quoted as an identifier, or it would be folded to lower case and cut at commas.
  // The replication grammar has no E'' strings and takes a backslash as it is, so pg's escapeLiteral does not fit.
  const names = `'${pg.escapeIdentifier(publication).replaceAll("'", "''")}'`
  const options = `proto_version '1', publication_names ${names}, messages 'true'`
  return `START_REPLICATION SLOT ${pg.escapeIdentifier(slotName)} LOGICAL ${lsn} (${options})`
}
