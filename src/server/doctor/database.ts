// The doctor's look at the database: everything Tidegate needs of it, read in a few queries, and judged by pure checks.
import type pg from 'pg'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { findingsOfRealtimeSchema, type RealtimeFinding } from '../admin/realtime-findings.ts'
import { createCatalog } from '../authorize/policy-catalog.ts'
import { settingsList } from '../authorize/settings.ts'
import { type Config, sessionUrlOf } from '../config/config.ts'
import { createLog } from '../log/log.ts'
import { createPool, queryText } from '../postgres/database.ts'
import { poolerRefusal } from '../wal/own-session.ts'
import { reach, readFacts, shortcomingsOf } from '../wal/preflight.ts'
import { lookAt } from '../wal/slot.ts'
import { type CheckName, failure, ok, shell, unknown, warning } from './checks.ts'
import { sql } from './database-checks.ts'
import { readClock } from './database-clock.ts'
import { readServer, readTransactions, type ServerFacts } from './database-facts.ts'
import { type Installed, readExpected, readInstalled } from './database-installed.ts'
import { pooledFinding, poolerFinding, readSession, replicationFinding } from './database-pooler.ts'
import { installationFindings, publicationFindings } from './database-publication.ts'
import {
  awaitedFinding,
  clockFinding,
  connectionFindings,
  idleSlotFinding,
  primaryFinding,
  roleFindings,
  roomFindings,
  senderTimeoutFinding,
  standbyFinding,
} from './database-server.ts'
import {
  defaultPatience,
  type OwnSlot,
  type Patience,
  preparedFindings,
  slotFindings,
  transactionFindings,
  walLimitFinding,
} from './database-slots.ts'
import { tableFindings } from './database-tables.ts'
import type { Finding } from './finding.ts'
import { releaseFindings } from './postgres-releases.ts'

export interface DatabaseFindingsOptions {
  readonly config: Pick<
    Config,
    | 'databaseUrl'
    | 'databaseReplicationUrl'
    | 'databasePool'
    | 'tidegateName'
    | 'jwtRoles'
    | 'slotMaxBytes'
    | 'claimSettings'
  >
  /** How long connecting, and each question, may take. Default 10,000. */
  readonly timeoutMs?: number
  /** This machine's clock, milliseconds since 1970. Default Date.now. */
  readonly now?: () => number
  /** What is long, for whom other limits fit. */
  readonly patience?: Partial<Patience>
}

/** Changes nothing. What cannot be read is an `unknown` finding; a database that cannot be reached is one failure.
 *  @throws nothing */
export async function databaseFindings(options: DatabaseFindingsOptions): Promise<Finding[]> {
  const { config, timeoutMs = 10_000 } = options
  const sessionUrl = sessionUrlOf(config)
  const opened = await open(sessionUrl, timeoutMs)
  if ('failed' in opened) return [opened.failed]
  const { pool, client, refusal } = opened
  try {
    const look = new DatabaseLook({ ...options, timeoutMs }, pool, client)
    return [ok('postgres-reachable', 'it answers, and lets the login in'), ...(await look.findings(refusal))]
  } finally {
    client.release(true)
    await pool.end()
  }
}

interface Opened {
  readonly pool: pg.Pool
  readonly client: pg.PoolClient
  /** What a pooler said to what a session is to begin with. */
  readonly refusal: string | null
}

async function open(url: string, timeoutMs: number): Promise<Opened | { readonly failed: Finding }> {
  let refusal: string | null = null
  for (;;) {
    let pool: pg.Pool | null = null
    try {
      pool = createPool(url, {
        maxConnections: 3,
        applicationName,
        queryTimeoutMs: timeoutMs,
        isPooled: refusal !== null,
      })
      const opened = pool
      const client = await reach(url, () => opened.connect())
      return { pool, client, refusal }
    } catch (error) {
      await pool?.end()
      const told = poolerRefusal((error as { cause?: unknown }).cause ?? error)
      if (refusal === null && told instanceof TidegateError && told.code === 'DATABASE_POOLED') {
        refusal = (told.cause as Error).message
        continue
      }
      const { code, message } = error as TidegateError
      return { failed: failure('postgres-reachable', message, null, { code }) }
    }
  }
}

const applicationName = 'tidegate doctor'

class DatabaseLook {
  readonly #options: DatabaseFindingsOptions & { readonly timeoutMs: number }
  readonly #pool: pg.Pool
  readonly #client: pg.PoolClient
  readonly #patience: Patience

  constructor(options: DatabaseFindingsOptions & { readonly timeoutMs: number }, pool: pg.Pool, client: pg.PoolClient) {
    this.#options = options
    this.#pool = pool
    this.#client = client
    this.#patience = { ...defaultPatience, ...options.patience }
  }

  async findings(refusal: string | null): Promise<Finding[]> {
    const { config, now = Date.now } = this.#options
    const client = this.#client
    const found = await looked(['postgres-version', 'postgres-minor'], async () => {
      const sqlText = `SELECT current_setting('server_version_num'), current_setting('server_version')`
      const [row] = await queryText(client, sqlText)
      return releaseFindings(Number(row![0]), row![1]!)
    })
    found.push(
      ...(await looked(['pooler'], async () => [
        poolerFinding(await readSession(client, refusal), config.databaseReplicationUrl !== null),
        ...(await this.#pooled()),
      ])),
      ...(await looked(['clock'], async () => [clockFinding(await readClock(client, now))])),
    )
    let server: ServerFacts | null = null
    found.push(
      ...(await looked(serverChecks, async () => {
        server = await readServer(client, config.jwtRoles)
        return [...(await this.#server(server)), ...(await this.#preflight())]
      })),
      ...(await looked(['long-transactions', 'prepared-transactions'], async () => {
        const { open: running, prepared } = await readTransactions(client)
        const seesAll = server?.seesAll ?? false
        return [
          ...transactionFindings(running, { ...this.#patience, seesAll }),
          ...preparedFindings(prepared, this.#patience),
        ]
      })),
      ...(await this.#installed(server)),
      ...(await looked(['realtime'], async () =>
        realtimeFindings(await findingsOfRealtimeSchema(client, config.tidegateName)),
      )),
    )
    return found
  }

  /** DATABASE_URL, where sessions go elsewhere. */
  async #pooled(): Promise<Finding[]> {
    const { config, timeoutMs: queryTimeoutMs } = this.#options
    if (config.databaseReplicationUrl === null) return []
    const pool = { maxConnections: 1, applicationName, queryTimeoutMs, isPooled: true }
    return [await pooledFinding(() => createPool(config.databaseUrl, pool), this.#client)]
  }

  async #server(server: ServerFacts): Promise<Finding[]> {
    const { slotMaxBytes, databasePool, jwtRoles } = this.#options.config
    const slots = await this.#slots()
    const isRead = slots.some(({ activePid }) => activePid !== null)
    return [
      primaryFinding(server),
      ...roomFindings(server, { slots: slots.length, isRead }),
      senderTimeoutFinding(server),
      walLimitFinding(server, slotMaxBytes),
      idleSlotFinding(server),
      ...slotFindings(slots, { ...this.#patience, slotMaxBytes }),
      standbyFinding(server, 'tidegate wal'),
      awaitedFinding(server),
      ...connectionFindings(server, databasePool),
      ...roleFindings(server, jwtRoles),
    ]
  }

  async #slots(): Promise<OwnSlot[]> {
    const { slots } = await lookAt(this.#client, this.#options.config.tidegateName)
    // As JSON: the column came with Postgres 17.
    const rows = await queryText(
      this.#client,
      `SELECT slot_name, extract(epoch FROM clock_timestamp() - (to_jsonb(s) ->> 'inactive_since')::timestamptz) * 1000
       FROM pg_replication_slots s`,
    )
    const idle = new Map(rows.map(([name, ms]) => [name, ms === null ? null : Number(ms)]))
    return slots.map(slot => ({ ...slot, idleMs: slot.activePid === null ? (idle.get(slot.slotName) ?? null) : null }))
  }

  /** What a start refuses, by the same check. */
  async #preflight(): Promise<Finding[]> {
    const { config, timeoutMs } = this.#options
    const facts = await readFacts(this.#client, config.tidegateName)
    const found = shortcomingsOf(facts, config.tidegateName).flatMap(shortcomingFinding)
    const lacks = (check: CheckName): boolean => found.some(each => each.check === check)
    if (!lacks('wal-level')) found.push(ok('wal-level', 'wal_level is logical'))
    if (!lacks('publication')) found.push(ok('publication', `the publication ${config.tidegateName} is there`))
    // Without the right nothing more is to be learnt from being refused.
    if (!lacks('replication-privilege'))
      found.push(
        ok('replication-privilege', `the login ${facts.user} may stream the WAL`),
        await replicationFinding(sessionUrlOf(config), timeoutMs),
      )
    return found
  }

  async #installed(server: ServerFacts | null): Promise<Finding[]> {
    const { tidegateName } = this.#options.config
    let installed: Installed | null = null
    const found = await looked(['schema', 'login-grants', 'event-triggers'], async () => {
      const expected = await readExpected()
      installed = await readInstalled(this.#client, tidegateName)
      return installationFindings(installed, expected)
    })
    const { publication } = (installed ?? { publication: null }) as Installed
    if (publication === null) return found
    found.push(...publicationFindings(tidegateName, publication))
    if (server === null || server.inRecovery) return found
    found.push(...(await looked(['table-kind'], () => this.#tables(server, publication))))
    return found
  }

  #tables(server: ServerFacts, publication: NonNullable<Installed['publication']>): Promise<Finding[]> {
    const { config, timeoutMs } = this.#options
    const { tidegateName, claimSettings } = config
    return tableFindings({
      pool: this.#pool,
      catalog: createCatalog({ pool: this.#pool, publication: tidegateName, log: createLog('silent') }),
      name: tidegateName,
      publication,
      roles: server.roles.filter(({ exists }) => exists).map(({ role }) => role),
      settingsOf: principal => settingsList(principal, { claimSettings }),
      timeoutMs,
    })
  }
}

const serverChecks: readonly CheckName[] = [
  ...(['postgres-primary', 'wal-level', 'replication-privilege', 'replication-slots', 'wal-senders'] as const),
  ...(['slot-wal-limit', 'slot', 'connections', 'roles', 'publication'] as const),
]

/** What cannot be read is said of every check that needed it. */
async function looked(checks: readonly CheckName[], look: () => Promise<Finding[]>): Promise<Finding[]> {
  try {
    return await look()
  } catch (error) {
    return checks.map(check => unknown(check, `it could not be looked at: ${(error as Error).message}`))
  }
}

/** The version is told with its minor. */
function shortcomingFinding({ code, reason, sql: statement }: ReturnType<typeof shortcomingsOf>[number]): Finding[] {
  switch (code) {
    case 'VERSION_UNSUPPORTED':
      return []
    case 'WAL_LEVEL':
      return [failure('wal-level', reason, sql(statement!, 'restart Postgres'), { code })]
    case 'NOT_REPLICATION':
      return [failure('replication-privilege', reason, sql(statement!), { code })]
    case 'PUBLICATION_MISSING':
      return [failure('publication', reason, shell('tidegate migrate'), { code })]
  }
}

function realtimeFindings(found: readonly RealtimeFinding[]): Finding[] {
  if (found.length === 0) return [ok('realtime', 'nothing is wrong with the schema realtime')]
  return found.map(({ kind, severity, message, remedy }) =>
    severity === 'notice'
      ? ok('realtime', `${message}; ${remedy}`, { about: kind })
      : warning('realtime', message, realtimeRemedy(kind, remedy), { about: kind }),
  )
}

/** The statement or command alone, of a sentence that a log has. */
function realtimeRemedy(kind: RealtimeFinding['kind'], remedy: string): ReturnType<typeof sql> {
  switch (kind) {
    case 'MESSAGES_UNPUBLISHED':
    case 'CLAIMS_READABLE':
      return sql(`${remedy};`)
    case 'PARTITION_MISSING':
      return sql(`${/by hand: (.*)$/s.exec(remedy)![1]};`)
    case 'SEND_SWALLOWS_ERRORS':
      return shell('tidegate migrate --adopt-realtime', "once Supabase's Realtime is switched off")
    case 'PUBLICATION_NOT_FOLLOWED':
      return shell('tidegate track --from-publication supabase_realtime')
  }
}
