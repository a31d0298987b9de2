// The corpus in one database: each entry's policies stand on the shared tables for a role of its own, so that all stand at
// once and no two meet. A token's `role` says `authenticated`, as everywhere; the claim `db_role` names the entry's role.
import pg from 'pg'
import { inject } from 'vitest'
import { settingsList } from '../../src/server/authorize/settings.ts'
import type { Principal } from '../../src/server/subscribe/subscription.ts'
import { prepareDatabase } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { channels } from './channels.ts'
import type { Entry } from './entry.ts'
import { helpers } from './helpers.ts'
import { owners } from './owners.ts'
import { roles } from './roles.ts'
import { people, schema, tables, tenants } from './schema.ts'
import { sharing } from './sharing.ts'
import { teams } from './teams.ts'
import { tenantPolicies } from './tenants.ts'

export const corpus: readonly Entry[] = [
  ...owners,
  ...tenantPolicies,
  ...roles,
  ...teams,
  ...sharing,
  ...channels,
  ...helpers,
]

export const claimSettings = [
  ...['tenant_id', 'tenant_ids', 'org_id', 'email', 'region', 'clearance', 'project_ids', 'bypass_rls'].map(claim => ({
    setting: `app.${claim}`,
    claim,
  })),
  { setting: 'app.current_tenant', claim: 'tenant_id' },
  { setting: 'app.user_id', claim: 'sub' },
  { setting: 'app.role', claim: 'org_role' },
  { setting: 'realtime.topic', claim: 'topic' },
]

type RoleName = 'authenticated' | 'anon' | 'staff'

/** What each reader's token says, besides the role of the database. */
export const claimsOf: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  ada: {
    role: 'authenticated',
    sub: people.ada,
    email: 'ada@acme.test',
    org_id: '1',
    org_role: 'owner',
    clearance: 3,
    tenant_id: tenants.acme,
    tenant_ids: `${tenants.acme},${tenants.bolt}`,
    region: 'eu',
    project_ids: [1, 2, 3, 7],
    aal: 'aal2',
    is_anonymous: false,
    user_role: 'admin',
    amr: [{ method: 'sso/saml', provider: 'eu' }],
    topic: 'room:1',
    app_metadata: { tenant_id: tenants.acme, role: 'admin', roles: ['editor', 'viewer'], projects: [1, 2, 3, 4, 5] },
  },
  bob: {
    role: 'authenticated',
    sub: people.bob,
    email: 'Bob@acme.test',
    org_id: '2',
    org_role: 'member',
    clearance: 1,
    tenant_id: tenants.acme,
    tenant_ids: tenants.acme,
    region: 'us',
    project_ids: [],
    bypass_rls: 'on',
    aal: 'aal1',
    is_anonymous: false,
    user_role: 'viewer',
    amr: [{ method: 'password' }],
    topic: 'Room:2',
    app_metadata: { tenant_id: tenants.acme, role: 'member', roles: ['viewer'], projects: ['6', '7'] },
  },
  cid: {
    role: 'authenticated',
    sub: people.cid,
    email: 'cid@bolt.test',
    o: { id: '3', rol: 'admin' },
    clearance: null,
    tenant_id: tenants.bolt,
    tenant_ids: '',
    is_anonymous: true,
    topic: `user:${people.cid}`,
    amr: [],
    app_metadata: { tenant_id: tenants.bolt, roles: [], projects: [] },
  },
  // A token that says no more than it must.
  dan: { role: 'authenticated', sub: people.dan },
  anonymous: { role: 'anon', topic: 'lobby' },
  staff: {
    role: 'authenticated',
    sub: people.eve,
    email: 'eve@acme.test',
    org_role: 'admin',
    tenant_id: tenants.bolt,
    topic: '',
    app_metadata: { roles: null, projects: [9], tenant_id: null },
  },
}

export class Corpus {
  readonly database: TestDatabase
  readonly #prefix: string

  private constructor(database: TestDatabase) {
    this.database = database
    this.#prefix = database.name.slice(-6)
  }

  static async create(): Promise<Corpus> {
    const database = await TestDatabase.create()
    const corpus = new Corpus(database)
    await prepareDatabase(database, schema, tables)
    await database.query(corpus.#policies())
    return corpus
  }

  /** Names of the database's roles for an entry. */
  role(entry: Entry, name: RoleName): string {
    return `corpus_${this.#prefix}_${corpus.indexOf(entry)}_${name}`
  }

  get roles(): string[] {
    return corpus.flatMap(entry => rolesUsed(entry).map(name => this.role(entry, name)))
  }

  /** Those who read under an entry's policies. */
  readers(entry: Entry): Readonly<Record<string, Principal>> {
    const used = rolesUsed(entry)
    const found = Object.entries(claimsOf).flatMap(([name, claims]): [string, Principal][] => {
      const wanted: RoleName = name === 'staff' ? 'staff' : name === 'anonymous' ? 'anon' : 'authenticated'
      if (!used.includes(wanted)) return []
      const role = this.role(entry, wanted)
      return [[name, { role, claims: { ...claims, db_role: role }, expiresAt: null }]]
    })
    return Object.fromEntries(found)
  }

  /** Begins a transaction, in which the rest of the session's queries are the reader's. */
  async asReader<T>(reader: Principal, use: (query: TestDatabase['query']) => Promise<T>): Promise<T> {
    const { database } = this
    const settings = settingsList(reader, { claimSettings })
    await database.query('BEGIN')
    try {
      const sets = settings.map((_, i) => `set_config($${2 * i + 1}, $${2 * i + 2}, true)`)
      await database.query(`SELECT ${sets.join(', ')}`, settings.flat())
      return await use((sql, values) => database.query(sql, values))
    } finally {
      await database.query('ROLLBACK')
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.database[Symbol.asyncDispose]()
    // Roles are the server's: they can go when nothing names them any more.
    const server = new pg.Client({ connectionString: inject('databaseUrl') })
    await server.connect()
    await server.query(`DROP ROLE ${this.roles.join(', ')}`).finally(() => server.end())
  }

  #policies(): string {
    const { roles } = this
    return [
      `SET check_function_bodies = on;`,
      ...roles.map(role => `CREATE ROLE ${role};`),
      `GRANT USAGE ON SCHEMA public, auth, storage, realtime, broadcasts TO ${roles.join(', ')};`,
      `GRANT SELECT ON ${tables.join(', ')} TO ${roles.join(', ')};`,
      ...corpus.flatMap((entry, i) => [
        ...(rolesUsed(entry).includes('staff')
          ? [`GRANT ${this.role(entry, 'authenticated')} TO ${this.role(entry, 'staff')};`]
          : []),
        this.#policiesOf(entry, i),
      ]),
      ...tables.map(table => {
        const open = corpus
          .filter(entry => !guarded(entry).includes(table))
          .flatMap(entry => rolesUsed(entry).map(name => this.role(entry, name)))
        return `CREATE POLICY open ON ${table} TO ${open.join(', ')} USING (true);`
      }),
    ].join('\n')
  }

  /** As the entry says it, for its own roles and under names of its own. */
  #policiesOf(entry: Entry, number: number): string {
    return entry.sql.replaceAll(createPolicy, (_, name: string, table: string, mode = '', to?: string) => {
      const named = to === undefined ? rolesUsed(entry) : (to.split(/, */) as RoleName[])
      const roles = named.map(role => this.role(entry, role))
      return `CREATE POLICY "${number} ${name.replaceAll('"', '')}" ON ${table} ${mode} TO ${roles.join(', ')} USING`
    })
  }
}

/** `CREATE POLICY name ON table [AS ...] [FOR ...] [TO ...] USING`. */
const createPolicy =
  /CREATE POLICY (\w+|"[^"]+") ON ([\w.]+)((?: AS \w+)?(?: FOR \w+)?)(?: TO (\w+(?:, \w+)*))?\s+USING/g

const rolesUsed = (entry: Entry): RoleName[] => {
  const to = [...entry.sql.matchAll(createPolicy)].map(match => match[4])
  const isNamed = (role: string): boolean => to.some(names => names?.split(', ').includes(role) === true)
  const everybody = to.includes(undefined)
  return [
    'authenticated',
    ...(everybody || isNamed('anon') ? ['anon'] : []),
    ...(isNamed('staff') ? ['staff'] : []),
  ] as RoleName[]
}

/** `public.tasks` for `tasks`. */
export const fullName = (table: string): string => (table.includes('.') ? table : `public.${table}`)

const guarded = (entry: Entry): string[] => [...entry.sql.matchAll(createPolicy)].map(match => fullName(match[2]!))
