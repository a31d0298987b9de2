// Captures the pgoutput messages of real changes, through the SQL functions of logical decoding.
// Also a script: `DATABASE_URL=... node test/server/decode/capture.ts "CREATE TABLE t (id int)" "INSERT INTO t VALUES (1)"`
// runs each argument as one transaction and prints the messages in hex.
import pg from 'pg'
import type { Change, Commit, Tuple } from '../../../src/server/decode/change.ts'
import { TransactionAssembler, type TransactionOptions } from '../../../src/server/decode/transaction.ts'
import { pinnedOptions } from '../../../src/server/postgres/database.ts'

/** A slot and a publication of all tables in the database of the client. One session of the assembler. */
export class Capture {
  readonly #client: pg.Client
  readonly #slot: string

  private constructor(client: pg.Client, slot: string) {
    this.#client = client
    this.#slot = slot
  }

  static async create(databaseUrl: string): Promise<Capture> {
    const client = new pg.Client({ connectionString: databaseUrl, options: pinnedOptions })
    client.on('error', () => {})
    await client.connect()
    const slot = `capture_${Math.random().toString(36).slice(2, 12)}`
    await client.query(`CREATE PUBLICATION ${slot} FOR ALL TABLES WITH (publish_via_partition_root = true)`)
    await client.query('SELECT pg_create_logical_replication_slot($1, $2)', [slot, 'pgoutput'])
    return new Capture(client, slot)
  }

  /** Messages since the last call. Each call is a session of its own to Postgres: it sends Relation messages anew. */
  async messages(): Promise<Buffer[]> {
    const messages: Buffer[] = []
    await this.stream(message => messages.push(message))
    return messages
  }

  /** The same, one by one, without holding them. */
  async stream(take: (message: Buffer) => void): Promise<void> {
    const query = new pg.Query<{ data: Buffer }>(
      `SELECT data FROM pg_logical_slot_get_binary_changes('${this.#slot}', NULL, NULL,
         'proto_version', '1', 'publication_names', '${this.#slot}', 'messages', 'true')`,
    )
    await new Promise<void>((resolve, reject) => {
      query.on('row', row => take(row.data))
      query.on('end', () => resolve())
      query.on('error', reject)
      this.#client.query(query)
    })
  }

  /** Commits since the last call that change or say something: Postgres before 15 sends empty ones too. */
  async commits(options?: TransactionOptions): Promise<Commit[]> {
    const assembler = new TransactionAssembler(options)
    const commits = (await this.messages()).map(message => assembler.push(message)).filter(commit => commit !== null)
    return commits.filter(commit => commit.changeCount > 0 || commit.messages.length > 0)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.query('SELECT pg_drop_replication_slot($1)', [this.#slot])
    await this.#client.query(`DROP PUBLICATION ${this.#slot}`)
    await this.#client.end()
  }
}

export const textsOf = (tuple: Tuple): (string | null | undefined)[] =>
  tuple.relation.columns.map((_, column) => tuple.text(column))

/** `['update', 'rooms', old values, new values]`; a truncate has none. */
export const shownChange = (change: Change): unknown[] => [
  change.kind,
  change.relation.name,
  ...('old' in change ? [textsOf(change.old)] : []),
  ...('new' in change ? [textsOf(change.new)] : []),
]

if (import.meta.main) {
  const databaseUrl = process.env.DATABASE_URL ?? ''
  await using capture = await Capture.create(databaseUrl)
  const client = new pg.Client({ connectionString: databaseUrl })
  await client.connect()
  for (const statement of process.argv.slice(2)) await client.query(statement)
  await client.end()
  for (const message of await capture.messages()) console.log(message.toString('latin1', 0, 1), message.toString('hex'))
}
