// What every scenario plays in: one database, one node, one runtime, and for each scenario of each cell a schema and topics of its own, so
// that they play side by side.
import { randomUUID } from 'node:crypto'
import { FaultProxy } from '../support/fault-proxy.ts'
import { person, prepareDatabase, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Client } from './client.ts'
import type { JsonObject, OpenOptions, Tell, Version } from './performer.ts'
import type { Runtime } from './runtime.ts'

export interface Cell {
  readonly version: Version
  readonly vsn: '1.0.0' | '2.0.0'
}

export const cells: readonly Cell[] = (['2.119.1', '2.83.0'] as const).flatMap(version =>
  (['1.0.0', '2.0.0'] as const).map(vsn => ({ version, vsn })),
)

export interface Scenario {
  readonly name: string
  /** Makes the tables it plays on, in a schema of its own. */
  readonly tables?: (schema: string) => string
  /** Names of those that are followed. */
  readonly tracked?: readonly string[]
  /** After they are followed: what `track` sets, and somebody changes. */
  readonly afterwards?: (schema: string) => string
  /** Clients that cannot: the rest of the sentence says why. */
  readonly not?: (cell: Cell & { readonly runtime: Runtime['name'] }) => string | null
  play(scene: Scene): Promise<void>
}

/** Who may do what in which private channel: `hear` and `speak` broadcasts, `see` and `show` presence. */
const seats = `
  CREATE TABLE public.seats (topic text NOT NULL, user_id uuid NOT NULL, may text NOT NULL, PRIMARY KEY (topic, user_id, may));
  ALTER TABLE public.seats ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON public.seats FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
  GRANT SELECT ON public.seats TO authenticated;
  GRANT USAGE ON SCHEMA public TO anon, authenticated;
  ${(['hear', 'see', 'speak', 'show'] as const)
    .map(may => {
      const isSending = may === 'speak' || may === 'show'
      const extension = may === 'hear' || may === 'speak' ? 'broadcast' : 'presence'
      return `CREATE POLICY "${may}" ON realtime.messages FOR ${isSending ? 'INSERT' : 'SELECT'} TO authenticated
        ${isSending ? 'WITH CHECK' : 'USING'} (realtime.messages.extension = '${extension}' AND EXISTS (SELECT 1 FROM public.seats s
          WHERE s.user_id = (SELECT auth.uid()) AND s.topic = (SELECT realtime.topic()) AND s.may = '${may}'));`
    })
    .join('\n')}
`

const schemaOf = ({ version, vsn }: Cell, scenario: Scenario): string =>
  `v${version.split('.')[1]}_${vsn[0]}_${scenario.name.toLowerCase().replaceAll(/[^a-z0-9]+/g, '_')}`.slice(0, 50)

export class World implements AsyncDisposable {
  readonly database: TestDatabase
  readonly node: TestNode
  readonly runtime: Runtime
  readonly #clients: Map<string, Client>
  #asking: Promise<unknown> = Promise.resolve()

  private constructor(fields: {
    database: TestDatabase
    node: TestNode
    runtime: Runtime
    clients: Map<string, Client>
  }) {
    this.database = fields.database
    this.node = fields.node
    this.runtime = fields.runtime
    this.#clients = fields.clients
  }

  static async begin(
    startRuntime: (tell: Tell) => Promise<Runtime>,
    scenarios: readonly Scenario[],
    settings: Record<string, string> = {},
    inCells: readonly Cell[] = cells,
  ): Promise<World> {
    const database = await TestDatabase.create()
    const stages = inCells.flatMap(cell => scenarios.map(scenario => ({ scenario, schema: schemaOf(cell, scenario) })))
    const sql = stages.map(({ scenario, schema }) =>
      scenario.tables === undefined
        ? ''
        : `CREATE SCHEMA ${schema}; GRANT USAGE ON SCHEMA ${schema} TO anon, authenticated; SET search_path = ${schema};
           ${scenario.tables(schema)}; RESET search_path;`,
    )
    const tracked = stages.flatMap(({ scenario, schema }) =>
      (scenario.tracked ?? []).map(table => (table.includes('.') ? table.replace('{}', schema) : `${schema}.${table}`)),
    )
    await prepareDatabase(database, seats + sql.join('\n'), ['seats', ...tracked])
    await database.query(stages.map(({ scenario, schema }) => scenario.afterwards?.(schema) ?? '').join('\n'))
    const node = await TestNode.start(database.url, {
      API_KEYS: 'sb_publishable_tests=anon',
      MAX_SUBSCRIPTIONS: '1000',
      HEARTBEAT_MS: '5000',
      ...settings,
    })
    const clients = new Map<string, Client>()
    const runtime = await startRuntime((client, topic, told) => clients.get(client)?.take(topic, told))
    return new World({ database, node, runtime, clients })
  }

  /** One after the other, over one connection: what is asked for first commits first. */
  query<Row extends Record<string, unknown>>(sql: string): Promise<Row[]> {
    const answer = this.#asking.then(() => this.database.query<Row>(sql))
    this.#asking = answer.catch(() => {})
    return answer
  }

  scene(cell: Cell, scenario: Scenario): Scene {
    return new Scene(this, cell, schemaOf(cell, scenario), this.#clients)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.runtime[Symbol.asyncDispose]()
    await this.node[Symbol.asyncDispose]()
    await this.database[Symbol.asyncDispose]()
  }
}

/** One scenario in one cell. */
export class Scene implements AsyncDisposable {
  readonly world: World
  readonly cell: Cell
  readonly schema: string
  readonly #all: Map<string, Client>
  readonly #clients: Client[] = []
  readonly #proxies: FaultProxy[] = []

  constructor(world: World, cell: Cell, schema: string, all: Map<string, Client>) {
    this.world = world
    this.cell = cell
    this.schema = schema
    this.#all = all
  }

  /** A topic of this scenario alone. */
  topic(name = 'room'): string {
    return `${this.schema}:${name}`
  }

  /** With the tables of the scenario's schema at hand. Each call is a transaction. */
  query<Row extends Record<string, unknown>>(sql: string): Promise<Row[]> {
    return this.world.query<Row>(`SET search_path = ${this.schema}, public; ${sql}`)
  }

  get anonKey(): Promise<string> {
    return tokenFor(person(), { role: 'anon' })
  }

  /** @param options with a `sub` it says the token of that user, with a `url` it goes another way than straight to the node */
  async client(
    options: Partial<OpenOptions> & { readonly sub?: string; readonly claims?: JsonObject } = {},
  ): Promise<Client> {
    const { sub, claims = {}, realtime = {}, token, ...rest } = options
    const client = new Client(this.world.runtime, `${this.schema} ${this.#clients.length} ${randomUUID().slice(0, 4)}`)
    this.#all.set(client.name, client)
    this.#clients.push(client)
    const said = token ?? (sub === undefined ? undefined : await tokenFor(sub, claims))
    await client.open({
      version: this.cell.version,
      url: this.world.node.url,
      key: await this.anonKey,
      realtime: { vsn: this.cell.vsn, ...realtime },
      ...(said === undefined ? {} : { token: said }),
      ...rest,
    })
    return client
  }

  /** What stands between a client and the node. */
  async proxy(): Promise<FaultProxy> {
    const proxy = await FaultProxy.before(this.world.node.url)
    this.#proxies.push(proxy)
    return proxy
  }

  async seat(sub: string, topic: string, ...may: readonly ('hear' | 'see' | 'speak' | 'show')[]): Promise<void> {
    const rows = may.map(each => `('${topic}', '${sub}', '${each}')`).join(', ')
    await this.world.query(`INSERT INTO public.seats VALUES ${rows}`)
  }

  async unseat(sub: string, topic: string, ...may: readonly string[]): Promise<void> {
    const which = may.length === 0 ? '' : `AND may IN (${may.map(each => `'${each}'`).join(', ')})`
    await this.world.database.query(`DELETE FROM public.seats WHERE topic = '${topic}' AND user_id = '${sub}' ${which}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) {
      await this.world.runtime.ask('close', client.name).catch(() => {})
      this.#all.delete(client.name)
    }
    for (const proxy of this.#proxies) await proxy[Symbol.asyncDispose]()
  }
}
