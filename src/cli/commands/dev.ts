// Everything for a first look, in one command: a database of its own unless one is given, the example with two people,
// a server, and a page that shows them side by side.
import { randomBytes } from 'node:crypto'
import { resolve } from 'node:path'
import pg from 'pg'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { type Config, type Environment, type Flags, loadConfig } from '../../server/config/config.ts'
import { createLog, type Log } from '../../server/log/log.ts'
import { type Block, quoted, renderBlock } from '../dev/block.ts'
import { Example, exampleTables, people } from '../dev/example.ts'
import { type OwnDatabase, startOwnDatabase } from '../dev/own-database.ts'
import { devRoutes, type Routes } from '../dev/routes.ts'
import { migrate } from './migrate.ts'
import type { RunningServer } from './start.ts'
import { mintToken } from './token.ts'
import { track } from './track.ts'

export interface DevOptions {
  readonly env: Environment
  readonly flags: Flags
  /** Load the example into the database of DATABASE_URL too. */
  readonly example: boolean
  /** Where an own database keeps its rows. Default `.tidegate` in the working directory. */
  readonly folder?: string
}

export type StartDevServer = (config: Config, deps: { log: Log; routes: Routes }) => Promise<RunningServer>

/** Where lines go. */
export interface DevOutput {
  /** The block. */
  print(text: string): void
  /** What is being done, and what was found. */
  note(line: string): void
}

/** Resolves when the signal has ended it, and everything it started has stopped.
 *  @throws what keeps it from starting: CONFIG_INVALID, DATABASE_UNREACHABLE, PRIVILEGE_MISSING ... */
export async function dev(
  options: DevOptions,
  startServer: StartDevServer,
  out: DevOutput,
  signal: AbortSignal,
): Promise<void> {
  // Stopped in reverse, whatever fails on the way.
  await using started = new AsyncDisposableStack()
  const own = options.env.DATABASE_URL?.trim() || options.flags.databaseUrl ? null : await ownDatabase(options, out)
  if (own !== null) started.defer(() => own.stop())
  if (signal.aborted) return
  const config = loadConfig(environment(options.env, own, out), options.flags)
  const ownerUrl = config.adminDatabaseUrl ?? config.databaseUrl
  await prepare(config, own !== null, out)
  const example = own !== null || options.example ? new Example(ownerUrl) : null
  if (example !== null) {
    started.defer(() => example.close())
    await loadExample(example, config, out)
  }
  if (signal.aborted) return

  if (example !== null && !['127.0.0.1', '::1', 'localhost'].includes(config.host))
    out.note(`HOST is ${config.host}: whoever reaches it can take the example's tokens and the database's password`)
  // The block and the page need the port, which the server knows only once it listens.
  const commands: (readonly [purpose: string, command: string])[] = []
  const mint = (person: string, expires = '10m'): Promise<string> =>
    mintToken(config, { role: 'authenticated', sub: person, expires }, Date.now())
  let inspector = '/inspect'
  const routes = devRoutes({ example, mint, commands, inspector: () => inspector })
  out.note('starting the server')
  const server = await startServer(config, { log: createLog(config.logLevel), routes }).catch(explainListen(config))
  started.defer(async () => {
    out.note('stopping')
    await server.stop()
  })
  const interrupted = new Promise<void>(done => signal.addEventListener('abort', () => done(), { once: true }))
  if (signal.aborted) return
  await Promise.race([server.ready(), interrupted])
  if (signal.aborted) return
  const page = urlOf(config.host, server.port)
  const { adminPort = null } = server
  if (adminPort !== null) inspector = `${urlOf(config.adminHost ?? config.host, adminPort)}/inspect`
  const block =
    example === null
      ? await blockOfOwner(config, page)
      : await blockOfExample(page, ownerUrl, person => mint(person, '12h'))
  commands.push(...block.commands)
  const facts = [...block.facts, ...inspectorFacts(new URL(inspector, page).href, options, config)]
  out.print(renderBlock({ ...block, facts }))
  await Promise.race([interrupted, server.ended()])
}

const urlOf = (host: string, port: number): string => `http://${host.includes(':') ? `[${host}]` : host}:${port}`

/** The token only where it is of this run: another is known to who gave it, and may be good elsewhere. */
function inspectorFacts(
  url: string,
  { env, flags }: DevOptions,
  { operatorToken }: Config,
): (readonly [name: string, value: string])[] {
  const [token] = operatorToken ?? []
  if (token === undefined) return []
  const isGiven = Boolean(env.OPERATOR_TOKEN || flags.operatorToken)
  return isGiven ? [['Inspector', url]] : [['Inspector', url], ['Token operator', token] as const]
}

async function ownDatabase({ folder = '.tidegate' }: DevOptions, out: DevOutput): Promise<OwnDatabase> {
  const own = await startOwnDatabase(resolve(folder), line => out.note(line))
  if (own.folder === null) out.note('the database is temporary: the user that runs Postgres may not enter this folder')
  return own
}

/** What was given, and for the rest what a first look needs. */
function environment(env: Environment, own: OwnDatabase | null, out: DevOutput): Environment {
  const quiet = { LOG_LEVEL: 'warn', OPERATOR_TOKEN: randomBytes(16).toString('hex'), ...env }
  const given = own === null ? quiet : { ...quiet, DATABASE_URL: own.databaseUrl, ADMIN_DATABASE_URL: own.ownerUrl }
  if (env.JWT_SECRET || env.JWT_JWKS_URL) return given
  if (own === null) out.note('JWT_SECRET is not set: tokens are signed with a secret of this run only')
  return { ...given, JWT_SECRET: randomBytes(32).toString('hex') }
}

/** Migrates where we may. Where we may not, the server's own check says what is missing, after us. */
async function prepare(config: Config, isOwn: boolean, out: DevOutput): Promise<void> {
  if (!isOwn && config.adminDatabaseUrl === null && (await isMigrated(config))) return
  out.note(
    `preparing the database (tidegate migrate${config.adminDatabaseUrl === null ? '' : ', as its administrator'})`,
  )
  const access = { databaseUrl: config.databaseUrl, adminUrl: config.adminDatabaseUrl, name: config.tidegateName }
  try {
    await migrate({ ...access, memberRoles: config.jwtRoles }, isOwn ? silence : noteLines(out))
  } catch (error) {
    if (!(error instanceof TidegateError) || error.code !== 'PRIVILEGE_MISSING') throw error
    out.note(`not migrated: ${error.message}`)
  }
}

async function loadExample(example: Example, config: Config, out: DevOutput): Promise<void> {
  if (!(await example.isLoaded())) {
    out.note('loading the example: rooms, members, messages')
    await example.load()
  }
  const access = { databaseUrl: config.databaseUrl, adminUrl: config.adminDatabaseUrl, name: config.tidegateName }
  await track({ ...access, tables: exampleTables }, silence)
}

async function isMigrated(config: Config): Promise<boolean> {
  const rows = await ask<{ found: boolean }>(
    config.databaseUrl,
    'SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1) AS found',
    config.tidegateName,
  )
  return rows[0]?.found === true
}

async function blockOfExample(
  page: string,
  ownerUrl: string,
  mint: (person: string) => Promise<string>,
): Promise<Block> {
  const [ada, ben] = people
  const psql = (sql: string): string => `psql ${quoted(ownerUrl)} -c "${sql}"`
  const tokens = await Promise.all(people.map(async ({ id, name }) => [name, await mint(id)] as const))
  return {
    title: 'Tidegate is ready.',
    facts: [
      ['Page', page],
      ['Database', ownerUrl],
      ...tokens.map(([name, token]) => [`Token ${name}`, token] as const),
    ],
    commands: [
      [
        'A message that both see',
        psql(`INSERT INTO messages (room_id, author, body) VALUES (1, '${ada.id}', 'Hello from psql')`),
      ],
      ['Take Ben out of the Lobby', psql(`DELETE FROM members WHERE room_id = 1 AND user_id = '${ben.id}'`)],
      [
        'What Ben may read, as it changes',
        `curl -N -H "Authorization: Bearer ${tokens[1]?.[1]}" ${page}/v1/live/messages`,
      ],
    ],
    end: 'Ctrl-C ends it.',
  }
}

async function blockOfOwner(config: Config, page: string): Promise<Block> {
  const { host, pathname } = new URL(config.databaseUrl)
  const tables = await ask<{ name: string }>(
    config.databaseUrl,
    `SELECT schemaname || '.' || tablename AS name FROM pg_publication_tables
     WHERE pubname = $1 AND schemaname <> 'tidegate' AND (schemaname, tablename) <> ('realtime', 'messages') ORDER BY 1`,
    config.tidegateName,
  )
  const [first] = tables
  return {
    title: `Tidegate serves ${host}${pathname}.`,
    facts: [
      ['Page', page],
      ['Tables', tables.map(({ name }) => name).join(', ') || 'none is tracked yet'],
    ],
    commands:
      first === undefined
        ? [['Track a table', 'tidegate track <table>']]
        : [
            ['Mint a token (sub is the user, for auth.uid())', 'tidegate token --sub <uuid>'],
            ['Follow a table', `curl -N -H "Authorization: Bearer $TOKEN" ${page}/v1/live/${first.name}`],
          ],
    end: 'The example is loaded with --example, or without DATABASE_URL. Ctrl-C ends it.',
  }
}

async function ask<R extends pg.QueryResultRow>(databaseUrl: string, sql: string, value: string): Promise<R[]> {
  const client = new pg.Client({ connectionString: databaseUrl, connectionTimeoutMillis: 10_000 })
  client.on('error', () => {})
  try {
    await client.connect()
    return (await client.query<R>(sql, [value])).rows
  } catch (cause) {
    const { host, pathname } = new URL(databaseUrl)
    throw new TidegateError('DATABASE_UNREACHABLE', `${host}${pathname}: ${String(cause)}`, { cause })
  } finally {
    await client.end().catch(() => {})
  }
}

const explainListen =
  (config: Config) =>
  (error: unknown): never => {
    if (!(error instanceof Error) || !('code' in error) || error.code !== 'EADDRINUSE') throw error
    throw new TidegateError('CONFIG_INVALID', `PORT is ${config.port}, where another process listens; choose another`, {
      cause: error,
    })
  }

const silence = { write: (): void => {} }

const noteLines = (out: DevOutput) => ({
  write: (text: string): void => {
    for (const line of text.split('\n')) if (line !== '') out.note(line)
  },
})
