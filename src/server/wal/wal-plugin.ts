// What runs on the replication connection before the copy begins, and hands every message on as the bytes it came in.
import pg from 'pg'
import type { LogicalReplicationService } from 'pg-logical-replication'
import { pinnedSettings } from '../database.ts'

export interface WalPluginOptions {
  readonly publication: string
  /** 0 switches it off. */
  readonly walSenderTimeoutMs: number
  /** Called with the connected client, before the copy begins. */
  readonly onConnected: (client: pg.Client) => void
}

export interface SystemIdentity {
  readonly systemId: string
  readonly timeline: string
}

/** The library does not export its plugin's type. */
type Plugin = Parameters<LogicalReplicationService['subscribe']>[0]

export class WalPlugin implements Plugin {
  readonly options: WalPluginOptions
  /** Known once the copy has begun. */
  system: SystemIdentity | null = null

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
    this.system = { systemId: identity.rows[0]!.systemid, timeline: String(identity.rows[0]!.timeline) }
    return client.query(startReplication(slotName, lsn, this.options.publication))
  }

  /** Never asked: once the copy has begun, the stream reads it itself. */
  parse(bytes: Buffer): Buffer {
    return bytes
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
