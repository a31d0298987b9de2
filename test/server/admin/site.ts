// A database as someone has it before Tidegate comes: tables owned by the application's login, an administrator, and a
// login for the server that owns nothing.
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { promisify } from 'node:util'
import pg from 'pg'
import { inject } from 'vitest'
import { migrate } from '../../../src/cli/commands/migrate.ts'
import { type TrackOptions, track } from '../../../src/server/admin/track.ts'
import { TestDatabase } from '../../support/postgres.ts'

const password = 'secret'

export class Site {
  readonly database: TestDatabase
  /** Owns schema `app` and what is in it. Also owns the database, so that it may create schemas and publications. */
  readonly owner: string
  /** LOGIN REPLICATION, and nothing else. */
  readonly login: string
  /** The application: connected as the owner. */
  readonly app: pg.Client
  readonly #serverUrl: string

  private constructor(database: TestDatabase, owner: string, login: string, app: pg.Client, serverUrl: string) {
    this.database = database
    this.owner = owner
    this.login = login
    this.app = app
    this.#serverUrl = serverUrl
  }

  static async create(serverUrl: string = inject('databaseUrl')): Promise<Site> {
    const database = await TestDatabase.create(serverUrl)
    const owner = `${database.name}_owner`
    const login = `${database.name}_login`
    await database.query(`CREATE ROLE ${owner} LOGIN PASSWORD '${password}'; CREATE ROLE ${login} LOGIN REPLICATION PASSWORD '${password}';
      ALTER DATABASE ${database.name} OWNER TO ${owner}; CREATE SCHEMA app AUTHORIZATION ${owner}`)
    const app = await connect(database.urlFor(owner, password))
    await app.query('SET search_path = app')
    await app.query(tables)
    return new Site(database, owner, login, app, serverUrl)
  }

  get options(): { databaseUrl: string; adminUrl: string; name: string } {
    return { databaseUrl: this.loginUrl, adminUrl: this.database.url, name: 'tidegate' }
  }

  get loginUrl(): string {
    return this.database.urlFor(this.login, password)
  }

  get ownerUrl(): string {
    return this.database.urlFor(this.owner, password)
  }

  /** Migrates the first time, and tracks as the administrator; gives what was printed. */
  async track(tables: readonly string[], options: Partial<TrackOptions> = {}): Promise<string> {
    const [schema] = await this.database.query<{ found: string | null }>(`SELECT to_regnamespace('tidegate') AS found`)
    if (schema!.found === null) await migrate(this.options, new Lines())
    return print(out => track({ ...this.options, ...options, tables }, out))
  }

  /** As where the administrator is no superuser. */
  async withoutEventTrigger(): Promise<void> {
    await migrate(this.options, new Lines())
    await this.database.query(
      'DROP EVENT TRIGGER tidegate_keep_writable; DROP EVENT TRIGGER tidegate_announce; DROP EVENT TRIGGER tidegate_announce_drop',
    )
  }

  async asLogin<T>(use: (client: pg.Client) => Promise<T>): Promise<T> {
    const client = await connect(this.loginUrl)
    try {
      return await use(client)
    } finally {
      await client.end()
    }
  }

  /** n (nothing), d, f or i, with the index. */
  async identity(table: string): Promise<string> {
    const [row] = await this.database.query<{ identity: string }>(
      `SELECT c.relreplident::text || coalesce(' ' || (SELECT indexrelid::regclass FROM pg_index
         WHERE indrelid = c.oid AND indisreplident AND c.relreplident = 'i'), '') AS identity
       FROM pg_class c WHERE oid = '${table}'::regclass`,
    )
    return row!.identity
  }

  /** Without the tables of ours: `realtime.messages` and those of the schema `tidegate`. */
  async published(): Promise<string[]> {
    const rows = await this.database.query<{ name: string }>(
      `SELECT r.prrelid::regclass::text AS name FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
       JOIN pg_class c ON c.oid = r.prrelid WHERE pubname = 'tidegate'
         AND c.relnamespace::regnamespace::text NOT IN ('realtime', 'tidegate') ORDER BY 1`,
    )
    return rows.map(row => row.name)
  }

  async readFunctions(): Promise<string[]> {
    const rows = await this.database.query<{ name: string }>(
      `SELECT proname AS name FROM pg_proc WHERE pronamespace = to_regnamespace('tidegate')
         AND proname ~ '\\.' ORDER BY 1`,
    )
    return rows.map(row => row.name)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.app.end()
    await this.database[Symbol.asyncDispose]()
    const server = await connect(this.#serverUrl)
    await server.query(`DROP ROLE IF EXISTS ${this.owner}, ${this.login}`).finally(() => server.end())
  }
}

/** What a command writes. */
export class Lines {
  text = ''
  write(text: string): void {
    this.text += text
  }
}

export async function print(run: (out: Lines) => Promise<void>): Promise<string> {
  const out = new Lines()
  await run(out)
  return out.text
}

export async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  return client
}

const psqlPath = ['/usr/lib/postgresql/15/bin/psql', '/usr/bin/psql'].find(path => existsSync(path))

/** Runs a printed script as its reader would: with psql, or where there is none, statement by statement as psql does. */
export async function runPrinted(url: string, script: string): Promise<void> {
  if (psqlPath !== undefined) {
    const child = promisify(execFile)(psqlPath, ['-X', '-q', url])
    child.child.stdin!.end(script)
    await child
    return
  }
  const client = await connect(url)
  const lines = script.split('\n').filter(line => !line.startsWith('\\'))
  await client.query(lines.join('\n')).finally(() => client.end())
}

const tables = `
  CREATE TABLE rooms (id integer PRIMARY KEY, name text);
  CREATE TABLE members (room_id integer NOT NULL, user_id uuid NOT NULL, PRIMARY KEY (room_id, user_id));
  CREATE TABLE messages (id bigint PRIMARY KEY, room_id integer NOT NULL, body text);
  ALTER TABLE messages ENABLE ROW LEVEL SECURITY;
  ALTER TABLE members ENABLE ROW LEVEL SECURITY;
  CREATE POLICY by_membership ON messages FOR SELECT USING (EXISTS (
    SELECT FROM members m WHERE m.room_id = messages.room_id
      AND m.user_id::text = current_setting('request.jwt.claims', true)::jsonb ->> 'sub'));
  CREATE TABLE events (id bigint NOT NULL, day integer NOT NULL, note text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
  CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (1) TO (10);
  CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (day);
  CREATE TABLE events_2_1 PARTITION OF events_2 FOR VALUES FROM (10) TO (15);
  INSERT INTO rooms VALUES (1, 'one'), (2, 'two');
  INSERT INTO messages VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c');
  INSERT INTO members VALUES (1, '00000000-0000-0000-0000-000000000001');
  INSERT INTO events VALUES (1, 1, 'x'), (2, 11, 'y')`
