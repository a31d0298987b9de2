// A lively node for looking at: a shop's chat and orders, people who follow them, and writers who never rest.
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { SignJWT } from 'jose'
import pg from 'pg'
import { migrate } from '../src/cli/commands/migrate.ts'
import { track } from '../src/cli/commands/track.ts'
import { LocalPostgres } from '../src/cli/local-postgres.ts'
import { type Client, createClient } from '../src/client/client.ts'
import { createLog, loadConfig, startServer } from '../src/server/server.ts'

export interface Demo extends AsyncDisposable {
  readonly url: string
  readonly operatorToken: string
  /** Somebody whom the policies show rooms 1, 2 and 3. */
  readonly person: string
  /** A connection of the tables' owner. */
  readonly database: pg.Client
  /** Commits a second from now on; 0: the writers rest. */
  pace(commitsPerSecond: number): void
}

const people = 30
/** Tabs and telephones: each person has three. */
const connections = 90
const rooms = 12
const jwtSecret = 'the secret of a demonstration, at least 32 bytes'
const operatorToken = 'the-operator-of-a-demonstration-only'
const silent = { write: () => true }
const personOf = (number: number): string => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`

const schema = `
  CREATE TABLE rooms (id int PRIMARY KEY, name text NOT NULL);
  CREATE TABLE members (room_id int NOT NULL REFERENCES rooms, user_id uuid NOT NULL, PRIMARY KEY (room_id, user_id));
  CREATE TABLE messages (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, room_id int NOT NULL REFERENCES rooms,
    author text NOT NULL, body text NOT NULL);
  CREATE TABLE orders (id int PRIMARY KEY, customer uuid NOT NULL, item text NOT NULL, state text NOT NULL,
    total numeric(10, 2) NOT NULL);
  CREATE TABLE notices (id int PRIMARY KEY, audience text NOT NULL, body text NOT NULL);
  CREATE FUNCTION may_read_notice(audience text) RETURNS boolean LANGUAGE plpgsql STABLE AS
    $$ BEGIN RETURN audience = coalesce(auth.jwt() ->> 'team', 'everybody') OR audience = 'everybody'; END $$;
  ALTER TABLE rooms ENABLE ROW LEVEL SECURITY;
  ALTER TABLE members ENABLE ROW LEVEL SECURITY;
  ALTER TABLE messages ENABLE ROW LEVEL SECURITY;
  ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
  ALTER TABLE notices ENABLE ROW LEVEL SECURITY;
  CREATE POLICY "your own memberships" ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
  CREATE POLICY "rooms you are in" ON rooms FOR SELECT TO authenticated USING (
    EXISTS (SELECT 1 FROM members m WHERE m.room_id = rooms.id AND m.user_id = (SELECT auth.uid())));
  CREATE POLICY "messages of rooms you are in" ON messages FOR SELECT TO authenticated USING (
    EXISTS (SELECT 1 FROM members m WHERE m.room_id = messages.room_id AND m.user_id = (SELECT auth.uid())));
  CREATE POLICY "your own orders" ON orders FOR SELECT TO authenticated USING (customer = (SELECT auth.uid()));
  CREATE POLICY "notices of your team" ON notices FOR SELECT TO authenticated USING (may_read_notice(audience));
  CREATE POLICY "members receive" ON realtime.messages FOR SELECT TO authenticated USING (
    EXISTS (SELECT 1 FROM members m WHERE m.user_id = (SELECT auth.uid()) AND 'room:' || m.room_id = realtime.topic()));
  CREATE POLICY "members send" ON realtime.messages FOR INSERT TO authenticated WITH CHECK (
    EXISTS (SELECT 1 FROM members m WHERE m.user_id = (SELECT auth.uid()) AND 'room:' || m.room_id = realtime.topic()));
  GRANT SELECT ON rooms, members, messages, orders, notices TO authenticated;
  INSERT INTO rooms SELECT i, (ARRAY['Lobby','Workshop','Garden','Kitchen','Harbour','Library','Attic','Studio','Cellar','Terrace','Depot','Office'])[i]
    FROM generate_series(1, ${rooms}) i;
  INSERT INTO members SELECT r, ('00000000-0000-4000-8000-' || lpad(p::text, 12, '0'))::uuid
    FROM generate_series(1, ${rooms}) r, generate_series(1, ${people}) p WHERE (p + r) % 4 = 0 OR (p = 1 AND r <= 3);
  INSERT INTO orders SELECT i, ('00000000-0000-4000-8000-' || lpad((1 + i % ${people})::text, 12, '0'))::uuid,
    (ARRAY['Oak stool','Brass lamp','Wool rug','Tea set','Wall clock'])[1 + i % 5], 'placed', 20 + i % 180 FROM generate_series(1, 600) i;
  INSERT INTO notices VALUES (1, 'everybody', 'Stocktaking on Friday'), (2, 'packing', 'New boxes are in');
`

export async function startDemo(): Promise<Demo> {
  await using stack = new AsyncDisposableStack()
  const postgres = await LocalPostgres.create({ settings: { fsync: 'off' } })
  await postgres.start()
  stack.defer(async () => void (await postgres.stop()))
  const database = new pg.Client({ connectionString: postgres.url })
  database.on('error', () => {})
  await database.connect()
  stack.defer(() => database.end())
  const admin = { databaseUrl: postgres.url, adminUrl: postgres.url, name: 'tidegate' }
  await migrate({ ...admin, conventions: true, print: false, dryRun: false }, silent)
  await database.query(schema)
  const tables = ['rooms', 'members', 'messages', 'orders', 'notices'].map(table => `public.${table}`)
  await track({ ...admin, tables, print: false, dryRun: false }, silent)
  const config = loadConfig({
    DATABASE_URL: postgres.url,
    JWT_SECRET: jwtSecret,
    OPERATOR_TOKEN: operatorToken,
    PORT: '0',
    HOST: '127.0.0.1',
    LOG_LEVEL: 'silent',
    BEACON_MS: '1000',
    DRAIN_DELAY_MS: '0',
  })
  const server = await startServer(config, { log: createLog('silent') })
  stack.defer(() => server.stop())
  await server.ready()
  const url = `http://127.0.0.1:${server.port}`
  const clients: Client[] = []
  for (let place = 0; place < connections; place++) {
    clients.push(await joinAs(url, 1 + (place % people)))
    // One after the other, as people come.
    await sleep(30)
  }
  stack.defer(() => void clients.map(client => client.close()))
  const stopping = new AbortController()
  const writer = new Writer(postgres.url, stopping.signal)
  const written = writer.run()
  stack.defer(() => written)
  stack.defer(() => stopping.abort())
  const held = stack.move()
  return {
    url,
    operatorToken,
    person: personOf(1),
    database,
    pace: commitsPerSecond => writer.pace(commitsPerSecond),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  }
}

/** What one person's application follows. */
async function joinAs(url: string, number: number): Promise<Client> {
  const claims = { role: 'authenticated', sub: personOf(number), team: number % 3 === 0 ? 'packing' : 'sales' }
  const token = await new SignJWT(claims)
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime('1d')
    .sign(new TextEncoder().encode(jwtSecret))
  const client = createClient(url, { token: async () => token })
  const room = 1 + ((number * 7) % rooms)
  client
    .from('messages')
    .live()
    .subscribe(() => {})
  client
    .from('rooms')
    .live()
    .subscribe(() => {})
  if (number % 2 === 0)
    client
      .from('messages')
      .where('room_id', '=', room)
      .live()
      .subscribe(() => {})
  if (number % 3 === 0)
    client
      .from('orders')
      .where('state', '=', 'placed')
      .live()
      .subscribe(() => {})
  if (number % 5 === 0) client.from('orders').changes({}, () => {})
  if (number % 15 === 0)
    client
      .from('notices')
      .live()
      .subscribe(() => {})
  for (let topic = 1; topic <= rooms; topic++)
    if ((number + topic) % 4 === 0 && topic % 3 !== 0) {
      const { presence } = client.channel(`room:${topic}`)
      presence.track({ name: `Person ${number}` })
      presence.subscribe(() => {})
    }
  return client
}

const bodies = [
  'On my way',
  'Who has the key?',
  'Done',
  'The tomatoes are in.',
  'Twelve boxes, all packed',
  'Looks good to me',
]

/** One connection that commits at a pace: mostly a row, sometimes many. */
class Writer {
  readonly #url: string
  readonly #stopping: AbortSignal
  #everyMs: number | null = 40
  #turn = 0

  constructor(url: string, stopping: AbortSignal) {
    this.#url = url
    this.#stopping = stopping
  }

  pace(commitsPerSecond: number): void {
    this.#everyMs = commitsPerSecond === 0 ? null : 1000 / commitsPerSecond
  }

  async run(): Promise<void> {
    const client = new pg.Client({ connectionString: this.#url })
    client.on('error', () => {})
    await client.connect()
    try {
      while (!this.#stopping.aborted) {
        if (this.#everyMs !== null) await client.query(this.#next())
        await sleep(this.#everyMs === null ? 50 : this.#everyMs * (0.3 + 1.4 * Math.random()))
      }
    } finally {
      await client.end()
    }
  }

  #next(): string {
    this.#turn += 1
    const room = 1 + Math.floor(Math.random() ** 1.5 * rooms)
    const body = bodies[this.#turn % bodies.length]!
    if (this.#turn % 53 === 0)
      return `UPDATE orders SET total = total + 1 WHERE id BETWEEN ${this.#turn % 400} AND ${(this.#turn % 400) + 40}`
    if (this.#turn % 7 === 0)
      return `UPDATE orders SET state = CASE state WHEN 'placed' THEN 'packed' WHEN 'packed' THEN 'sent' ELSE 'placed' END
        WHERE id IN (SELECT 1 + floor(random() * 600)::int FROM generate_series(1, 3))`
    if (this.#turn % 31 === 0) return `DELETE FROM messages WHERE id IN (SELECT id FROM messages ORDER BY id LIMIT 20)`
    if (this.#turn % 97 === 0)
      return `UPDATE notices SET body = 'Stocktaking on Friday, ${randomUUID().slice(0, 4)}' WHERE id = 1`
    return `INSERT INTO messages (room_id, author, body) VALUES (${room}, 'Person ${1 + (this.#turn % people)}', '${body}')`
  }
}
