// The database of a measurement: a server of its own, rooms with members, messages that members may read.
import { randomUUID } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { SignJWT } from 'jose'
import pg from 'pg'
import { migrate } from '../src/cli/commands/migrate.ts'
import { track } from '../src/cli/commands/track.ts'
import { LocalPostgres } from '../src/cli/local-postgres.ts'

export const jwtSecret = 'a secret of the measurements, at least 32 bytes'
export const name = 'tidegate_bench'

const schema = `
  CREATE TABLE public.members (room_id int NOT NULL, user_id uuid NOT NULL, PRIMARY KEY (room_id, user_id));
  CREATE INDEX ON public.members (user_id);
  CREATE TABLE public.messages (id bigint PRIMARY KEY, room_id int NOT NULL, author uuid, body text NOT NULL,
    sent_us bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
  CREATE TABLE public.team_members (team_id int NOT NULL, user_id uuid NOT NULL, PRIMARY KEY (team_id, user_id));
  CREATE INDEX ON public.team_members (user_id);
  CREATE TABLE public.projects (id int PRIMARY KEY, team_id int NOT NULL);
  CREATE INDEX ON public.projects (team_id);
  CREATE TABLE public.rooms (id int PRIMARY KEY, project_id int NOT NULL);
  CREATE INDEX ON public.rooms (project_id);
  CREATE TABLE public.deep_messages (LIKE public.messages INCLUDING ALL);
  CREATE SEQUENCE public.message_ids MINVALUE 2000000000;
  ALTER TABLE public.members ENABLE ROW LEVEL SECURITY;
  ALTER TABLE public.messages ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON public.members FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
  CREATE POLICY by_membership ON public.messages FOR SELECT TO authenticated USING (
    EXISTS (SELECT 1 FROM public.members m WHERE m.room_id = messages.room_id AND m.user_id = (SELECT auth.uid())));
  ALTER TABLE public.deep_messages ENABLE ROW LEVEL SECURITY;
  CREATE POLICY by_team ON public.deep_messages FOR SELECT TO authenticated USING (
    EXISTS (SELECT 1 FROM public.rooms r JOIN public.projects p ON p.id = r.project_id
      JOIN public.team_members t ON t.team_id = p.team_id
      WHERE r.id = deep_messages.room_id AND t.user_id = (SELECT auth.uid())));
  GRANT SELECT ON public.members, public.messages, public.team_members, public.projects, public.rooms,
    public.deep_messages TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated, anon;
`

const silent = { write: () => true }

export class World {
  readonly postgres: LocalPostgres
  readonly client: pg.Client
  /** Folder of pg_recvlogical and pgbench. */
  readonly binDir: string

  private constructor(postgres: LocalPostgres, client: pg.Client, binDir: string) {
    this.postgres = postgres
    this.client = client
    this.binDir = binDir
  }

  /** @param binDir of a PostgreSQL installation with pg_recvlogical and pgbench; null looks where Debian puts them */
  static async create(binDir: string | null): Promise<World> {
    const folder = binDir ?? debianBinaries()
    if (folder === null || !existsSync(join(folder, 'pg_recvlogical')))
      throw new Error(`no pg_recvlogical in ${folder ?? '/usr/lib/postgresql'}; name its folder with --pg-bin`)
    const settings = {
      shared_buffers: '512MB',
      max_wal_size: '16GB',
      checkpoint_timeout: '1h',
      autovacuum: 'off',
      max_slot_wal_keep_size: '256GB',
    }
    const postgres = await LocalPostgres.create({ binDir: folder, settings })
    await postgres.start()
    const client = new pg.Client({ connectionString: postgres.url })
    await client.connect()
    const options = { databaseUrl: postgres.url, adminUrl: postgres.url, name }
    await migrate({ ...options, conventions: true, print: false, dryRun: false }, silent)
    await client.query(schema)
    const tables = ['members', 'messages', 'team_members', 'projects', 'rooms', 'deep_messages'].map(
      table => `public.${table}`,
    )
    await track({ ...options, tables, print: false, dryRun: false }, silent)
    return new World(postgres, client, folder)
  }

  /** Users, each a member of the room that `roomOf` gives for its number. */
  async users(count: number, roomOf: (user: number) => number): Promise<string[]> {
    const ids = Array.from({ length: count }, () => randomUUID())
    const rooms = ids.map((_, user) => roomOf(user))
    await this.client.query('INSERT INTO public.members SELECT * FROM unnest($1::int[], $2::uuid[])', [rooms, ids])
    return ids
  }

  /** The same by three hops: the room's project, the project's team, the team's member. */
  async teams(users: readonly string[], roomOf: (user: number) => number): Promise<void> {
    const numbers = users.map((_, user) => roomOf(user))
    await this.client.query('INSERT INTO public.team_members SELECT * FROM unnest($1::int[], $2::uuid[])', [
      numbers,
      users,
    ])
    await this.client.query('INSERT INTO public.projects SELECT n, n FROM unnest($1::int[]) AS n', [numbers])
    await this.client.query('INSERT INTO public.rooms SELECT n, n FROM unnest($1::int[]) AS n', [numbers])
  }

  /** So many more memberships for each, in rooms where nothing happens. */
  async memberships(users: readonly string[], each: number): Promise<void> {
    for (let from = 0; from < users.length; from += 500)
      await this.client.query(
        'INSERT INTO public.members SELECT 1000000 + (u.n * 7919 + r) % 5000, u.id FROM unnest($1::uuid[]) WITH ORDINALITY AS u (id, n), generate_series(1, $2) AS r',
        [users.slice(from, from + 500), each],
      )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.end()
    await this.postgres.stop()
  }
}

export const tokensFor = (users: readonly string[]): Promise<string[]> => {
  const key = new TextEncoder().encode(jwtSecret)
  const sign = (sub: string): Promise<string> =>
    new SignJWT({ role: 'authenticated', sub }).setProtectedHeader({ alg: 'HS256' }).setExpirationTime('1h').sign(key)
  return Promise.all(users.map(sign))
}

/** The newest that Debian's packages installed. */
function debianBinaries(): string | null {
  const root = '/usr/lib/postgresql'
  if (!existsSync(root)) return null
  const versions = readdirSync(root).filter(version => existsSync(join(root, version, 'bin', 'pg_recvlogical')))
  const newest = versions.sort((a, b) => Number(b) - Number(a))[0]
  return newest === undefined ? null : join(root, newest, 'bin')
}
