#!/usr/bin/env node
// The command `tidegate`: what can be asked for and with which options. Each command's work is in commands/, loaded only
// when it is asked for, so that `--help` needs no database driver.
import { Command, Option as Flag } from 'commander'
import { TidegateError } from '../protocol/tidegate-error.ts'
import { loadConfig, loadOptions, type OptionName, optionNames, sessionUrlOf } from '../server/config/config.ts'
import type { OrderKind } from './commands/order.ts'
import { describeFailure } from './failure.ts'
import { addFlags } from './flags.ts'
import { readManifest, requireNode } from './manifest.ts'
import { stopSignal } from './signals.ts'

const manifest = readManifest()

const program = new Command('tidegate')
  .description('Streams the row changes of a Postgres database to the people who may see them, the moment they commit.')
  .version(manifest.version, '--version', 'print the version')
  .option('--verbose', 'show the cause and the stack of a failure')
  .configureHelp({ sortSubcommands: false, showGlobalOptions: true })
  .showHelpAfterError('Run with --help for what it takes.')
  .addHelpText('after', '\nEvery flag can be set in the environment instead; docs/configuration.md lists them.')

function command(signature: string, description: string, names: readonly OptionName[]): Command {
  return addFlags(program.command(signature).description(description), names)
}

/** What was asked for goes to standard output, the rest beside it. */
const print = (line: string): void => console.log(line)
const note = (line: string): void => console.error(`tidegate: ${line}`)

const collect = (value: string, before: readonly string[] = []): readonly string[] => [...before, value]

command('start', 'Run a server.', optionNames).action(async flags => {
  const config = loadConfig(process.env, flags)
  const [{ start }, { startServer }, { IdleMemory }, { keepYoungGenerationSmall }] = await Promise.all([
    import('./commands/start.ts'),
    import('../server/server.ts'),
    import('../server/process/idle-memory.ts'),
    import('../server/process/young-generation.ts'),
  ])
  // Here and not in the server: these are matters of the whole process.
  new IdleMemory()
  keepYoungGenerationSmall()
  await start(config, startServer, print, stopSignal())
  // What a library still holds open must not keep a server alive that said goodbye.
  process.exit()
})

command(
  'dev',
  'Try it: a database of its own unless DATABASE_URL is set, an example, and a page that shows it.',
  optionNames,
)
  .option('--example', 'load the example into the database of DATABASE_URL too')
  .action(async ({ example, ...flags }) => {
    const [{ dev }, { startServer }] = await Promise.all([import('./commands/dev.ts'), import('../server/server.ts')])
    await dev({ env: process.env, flags, example: example === true }, startServer, { print, note }, stopSignal())
    process.exit()
  })

const adminOptions = ['DATABASE_URL', 'DATABASE_REPLICATION_URL', 'ADMIN_DATABASE_URL', 'TIDEGATE_NAME'] as const

interface AdminFlags {
  readonly [flag: string]: unknown
  readonly dryRun?: boolean
  readonly print?: boolean
  readonly lockTimeoutMs?: string
}

function adminCommand(signature: string, description: string, names: readonly OptionName[] = []): Command {
  return command(signature, description, [...adminOptions, ...names])
    .option('--dry-run', 'show what would run, and change nothing')
    .option('--lock-timeout-ms <value>', 'how long a statement may wait for a lock (default 5000)')
}

/** What every command that changes the database takes. @throws CONFIG_INVALID */
function administration(flags: AdminFlags) {
  const { adminDatabaseUrl, tidegateName, ...urls } = loadOptions(adminOptions, process.env, flags)
  const databaseUrl = sessionUrlOf(urls)
  const { dryRun = false, lockTimeoutMs = '5000' } = flags
  if (!/^[1-9]\d{0,7}$/.test(lockTimeoutMs))
    throw new TidegateError(
      'CONFIG_INVALID',
      `--lock-timeout-ms is "${lockTimeoutMs}"; it takes a whole number from 1 to 99999999`,
    )
  return { databaseUrl, adminUrl: adminDatabaseUrl, name: tidegateName, dryRun, lockTimeoutMs: Number(lockTimeoutMs) }
}

adminCommand('migrate', 'Install what Tidegate needs in the database: its publication, roles and functions.', [
  'JWT_ROLES',
])
  .option('--print', 'print the SQL for someone else to run, and connect to nothing')
  .option('--no-conventions', 'leave out the roles anon and authenticated and the functions auth.uid(), jwt(), role()')
  .option('--adopt-realtime', "take over a Supabase's schema realtime, once its own Realtime is switched off")
  .action(async (flags: AdminFlags & { conventions: boolean; adoptRealtime?: boolean }) => {
    const { migrate } = await import('./commands/migrate.ts')
    const { print = false, conventions, adoptRealtime = false } = flags
    const { jwtRoles: memberRoles } = loadOptions(['JWT_ROLES'], process.env, flags)
    await migrate({ ...administration(flags), print, conventions, adoptRealtime, memberRoles }, process.stdout)
  })

interface TrackFlags {
  readonly index?: boolean
  readonly columns?: string
  readonly fromPublication?: string
}

adminCommand('track [tables...]', 'Follow tables; without a name, put right those that are followed.')
  .option('--from-publication <name>', 'also the tables of another publication, such as supabase_realtime')
  .option('--print', 'print the SQL for someone else to run, and change nothing')
  .option('--index', 'a unique index over what policies read, instead of REPLICA IDENTITY FULL')
  .option('--columns <columns>', 'with --index: these columns, with commas between')
  .action(async (tables: string[], flags: AdminFlags & TrackFlags) => {
    const { track } = await import('./commands/track.ts')
    const { print = false, index = false, columns, fromPublication } = flags
    const chosen = columns === undefined ? {} : { columns: columns.split(',').map(column => column.trim()) }
    const published = fromPublication === undefined ? {} : { fromPublication }
    await track({ ...administration(flags), tables, print, index, ...chosen, ...published }, process.stdout)
  })

adminCommand('untrack <tables...>', 'Follow tables no longer, and leave them as they were.').action(
  async (tables: string[], flags: AdminFlags) => {
    const { untrack } = await import('./commands/untrack.ts')
    await untrack({ ...administration(flags), tables }, process.stdout)
  },
)

adminCommand('remove', 'Take Tidegate out of the database: slot, publication, functions and schemas.')
  .option('--force', 'also while a server streams: its session is ended')
  .action(async (flags: AdminFlags & { force?: boolean }) => {
    const { remove } = await import('./commands/remove.ts')
    await remove({ ...administration(flags), force: flags.force === true }, process.stdout)
  })

command('doctor', 'Look at the database, Redis, options and machine: what does not hold, and what to run.', optionNames)
  .option('--json', 'as JSON, for programs')
  .option('--strict', 'exit with 1 also for warnings')
  .addHelpText('after', '\nExit code: 0 if nothing failed, 1 if something did, 2 if something could not be looked at.')
  .action(async ({ json = false, strict = false, ...flags }) => {
    const { doctor } = await import('./commands/doctor.ts')
    const isTerminal = process.stdout.isTTY === true
    process.exitCode = await doctor({ env: process.env, flags, json, strict, isTerminal }, print)
  })

const explainOptions = [
  'DATABASE_URL',
  'DATABASE_REPLICATION_URL',
  'TIDEGATE_NAME',
  'JWT_SECRET',
  'JWT_JWKS_URL',
  'JWT_ALGORITHMS',
  'JWT_ISSUER',
  'JWT_AUDIENCE',
  'JWT_ROLE_CLAIM',
  'DEFAULT_ROLE',
  'JWT_ROLES',
  'CLAIM_SETTINGS',
  'MEMBERSHIP_MAX_ROWS',
] as const

command(
  'explain <table>',
  'Explain who may see what: each policy, what it reads, and why a row is visible or not.',
  explainOptions,
)
  .option('--role <role>', 'the database role; not needed with claims that name it')
  .option('--claims <json>', 'the claims of a reader: \'{"sub": "..."}\'')
  .option('--token <jwt>', 'the token of a reader, instead of --role and --claims [TIDEGATE_TOKEN]')
  .option('--key <column=value>', 'the row: its primary key; may be given several times', collect)
  .option('--json', 'as JSON, the same that GET /v1/explain answers')
  .action(async (table: string, flags) => {
    const { explain } = await import('./commands/explain.ts')
    const { role, claims, token, key = [], json = false } = flags
    const isSaid = role !== undefined || claims !== undefined
    const wishes = {
      table,
      role,
      claims,
      token: token ?? (isSaid ? undefined : process.env.TIDEGATE_TOKEN),
      keys: key,
      json,
    }
    const agrees = await explain(loadOptions(explainOptions, process.env, flags), wishes, { print, note })
    if (!agrees) process.exitCode = 1
  })

const mintOptions = [
  'JWT_SECRET',
  'JWT_JWKS_URL',
  'JWT_ALGORITHMS',
  'JWT_ISSUER',
  'JWT_AUDIENCE',
  'JWT_ROLE_CLAIM',
] as const

command('token', 'Mint a development token, signed with JWT_SECRET.', mintOptions)
  .option('--role <role>', 'the database role', 'authenticated')
  .option('--sub <subject>', 'the claim sub: who it is, a UUID where policies use auth.uid()')
  .option('--claim <name=value>', 'a further claim; may be given several times', collect)
  .option('--expires <time>', '90s, 30m, 1h, 7d, or never', '1h')
  .action(async flags => {
    const { mintToken } = await import('./commands/token.ts')
    const options = loadOptions(mintOptions, process.env, flags)
    const wishes = { role: flags.role, sub: flags.sub, claims: flags.claim ?? [], expires: flags.expires }
    console.log(await mintToken(options, wishes, Date.now()))
  })

command('tail <table>', 'Follow a table: its rows, then every change.', [])
  .option('--url <url>', 'the server (default http://127.0.0.1:4000, or the PORT of the environment)')
  .option('--token <token>', 'the token of the reader [TIDEGATE_TOKEN]')
  .option('--filter <column=operator.value>', "one condition: 'room_id=eq.1'; may be given several times", collect)
  .option('--select <columns>', 'columns with commas between')
  .option('--changes', 'every change as an event, with old and new values')
  .addOption(new Flag('--as <format>', 'one line for each').choices(['text', 'json']).default('text'))
  .action(async (table: string, flags) => {
    const { tail } = await import('./commands/tail.ts')
    const { port } = loadOptions(['PORT'], process.env)
    await tail(
      {
        table,
        url: flags.url ?? `http://127.0.0.1:${port}`,
        token: flags.token ?? process.env.TIDEGATE_TOKEN ?? null,
        filters: flags.filter ?? [],
        select: flags.select ?? null,
        changes: flags.changes === true,
        as: flags.as,
      },
      { print, note },
      stopSignal(),
    )
  })

const rebalanceOptions = ['REDIS_URL', 'TIDEGATE_NAME'] as const

command(
  'rebalance',
  'Spread connections over the nodes anew, gently: after adding a node, for instance.',
  rebalanceOptions,
)
  .option('--over <time>', 'how long to take: 30s, 5m', '30s')
  .option('--dry-run', 'show what each node holds and would be asked, and ask nothing')
  .action(async flags => {
    const { rebalance } = await import('./commands/rebalance.ts')
    const { redisUrl, tidegateName } = loadOptions(rebalanceOptions, process.env, flags)
    if (redisUrl === null)
      throw new TidegateError(
        'CONFIG_INVALID',
        'REDIS_URL is not set; nodes that know of each other have one in common',
      )
    const options = { redisUrl, name: tidegateName, overMs: overMsOf(flags.over), dryRun: flags.dryRun === true }
    if (!(await rebalance(options, { print, note }, stopSignal()))) process.exitCode = 1
  })

function orderCommand(kind: OrderKind, description: string, names: Readonly<Record<string, string>>): void {
  const made = command(kind, description, adminOptions)
  for (const [flag, text] of Object.entries(names)) made.option(flag, text)
  made.action(async flags => {
    const { order } = await import('./commands/order.ts')
    const { adminDatabaseUrl: adminUrl, tidegateName, ...urls } = loadOptions(adminOptions, process.env, flags)
    const databaseUrl = sessionUrlOf(urls)
    const own = Object.keys(names).map(flag => /^--(\S+)/.exec(flag)![1]!.replace(/-(.)/g, (_, c) => c.toUpperCase()))
    const given = Object.fromEntries(own.filter(name => flags[name] !== undefined).map(name => [name, flags[name]]))
    await order({ databaseUrl, adminUrl, name: tidegateName }, kind, given, print)
  })
}

const reasonFlag = { '--reason <text>': 'told to the client' }
const untilFlag = { '--until <time>': 'ISO 8601 with an offset: 2026-06-01T00:00:00Z' }

orderCommand('kick', 'End connections, or places in a channel; who comes back is let in.', {
  '--sub <user>': "the claim sub of the user's tokens",
  '--connection <name>': "a connection's name, as its welcome says",
  '--topic <topic>': 'only places in the channels of this name; alone: of everybody',
  '--jti <id>': 'what was opened with this token',
  '--retry-after-ms <value>': 'when its clients are told to come back',
  ...reasonFlag,
})
orderCommand('revoke', 'Refuse tokens, and end what was opened with them.', {
  '--sub <user>': 'all that this user was issued up to now',
  '--jti <id>': 'this token',
  ...untilFlag,
  ...reasonFlag,
})
orderCommand('refresh', "Ask a user's sessions for newer tokens, and end those that bring none.", {
  '--sub <user>': "the claim sub of the user's tokens",
  '--within-ms <value>': 'how long they have (default 10000)',
  ...untilFlag,
  ...reasonFlag,
})

/** @throws CONFIG_INVALID */
function overMsOf(text: string): number {
  const match = /^(\d{1,4})(s|m)$/.exec(text)
  if (match === null) throw new TidegateError('CONFIG_INVALID', `--over is "${text}"; it takes a time as 30s or 5m`)
  return Number(match[1]) * (match[2] === 'm' ? 60_000 : 1000)
}

try {
  requireNode(manifest, process.versions.node)
  await program.parseAsync()
} catch (error) {
  console.error(describeFailure(error, { isVerbose: program.opts().verbose === true }))
  process.exitCode = 1
}
