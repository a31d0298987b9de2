// What one role may do with rows of realtime.messages: what the catalog says, read for both commands.
import type { Expr, Predicate } from '../../../predicate/algebra.ts'
import { type ColumnExpr, mapColumns } from '../../../predicate/map-columns.ts'
import { TidegateError } from '../../../protocol/tidegate-error.ts'
import { askedCondition, compileAccess } from '../../authorize/policies.ts'
import type { PostgresCatalog } from '../../catalog/catalog.ts'
import { type AskedAccess, type Command, RemedyNeeded, type Table, type TableAccess } from '../../catalog/table.ts'
import type { Log } from '../../log/log.ts'
import { repeated } from '../../log/log-repeated.ts'
import { isAskable } from '../../subscribe/prepare-asked.ts'
import type { Action, Extension } from './permission.ts'

export type ChannelCatalog = Pick<PostgresCatalog, 'inspect' | 'accessOrAsked' | 'compiled' | 'readUpTo'>

/** What decides one action. */
export type Deciding =
  | {
      readonly by: 'memberships'
      /** Over no row: constants and settings stand for its columns. */
      readonly policies: Readonly<Record<Extension, Predicate>>
      readonly memberships: readonly Table[]
    }
  /** Postgres, by what its policies say of a row that is called `messages`. */
  | { readonly by: 'postgres'; readonly condition: string }
  | { readonly by: 'nothing'; readonly refusal: TidegateError }

export interface ChannelAccess {
  readonly table: Table
  readonly deciding: Readonly<Record<Action, Deciding>>
}

export const messagesTable = { schema: 'realtime', name: 'messages' } as const

const commands: Readonly<Record<Action, Command>> = { receive: 'SELECT', send: 'INSERT' }

/** Columns of the row that policies judge, as far as the table has them. */
export const judgedColumns: readonly string[] = ['topic', 'extension', 'private']
const neededColumns: readonly string[] = ['topic', 'extension']

/** @throws CHANNELS_OFF where there is no such table; what is wrong where neither action can be judged */
export async function readChannelAccess(catalog: ChannelCatalog, role: string, log: Log): Promise<ChannelAccess> {
  const table = await tableOf(catalog)
  const receive = await decidingOf(catalog, table, role, 'receive')
  const send = await decidingOf(catalog, table, role, 'send')
  if (receive.by === 'nothing' && send.by === 'nothing') throw receive.refusal
  for (const each of [receive, send])
    if (each.by === 'nothing')
      repeated(log).warn(
        { code: each.refusal.code, role },
        `nobody is let into channels by this: ${each.refusal.message}`,
      )
  return { table, deciding: { receive, send } }
}

async function tableOf(catalog: ChannelCatalog): Promise<Table> {
  const { schema, name } = messagesTable
  let table: Table
  try {
    table = await catalog.inspect(schema, name)
  } catch (cause) {
    if (cause instanceof TidegateError && (cause.code === 'TABLE_UNKNOWN' || cause.code === 'TABLE_UNSUPPORTED'))
      throw new TidegateError(
        'CHANNELS_OFF',
        `private channels need the table ${schema}.${name}; run tidegate migrate`,
        {
          cause,
        },
      )
    throw cause
  }
  const missing = neededColumns.filter(column => !table.columns.some(each => each.name === column))
  if (missing.length > 0)
    throw new TidegateError(
      'CHANNELS_OFF',
      `${schema}.${name} has no column ${missing.join(', ')}; run tidegate migrate`,
    )
  return table
}

/** `realtime.topic()` reads it. */
export const topicSetting = 'realtime.topic'

async function decidingOf(catalog: ChannelCatalog, table: Table, role: string, action: Action): Promise<Deciding> {
  const command = commands[action]
  try {
    // For its warnings, and what it refuses. What does not compile for any row may yet compile for this one.
    assertColumns(await catalog.accessOrAsked(table, role, command), command)
    const over = (extension: Extension): Promise<TableAccess> =>
      catalog.compiled(table, role, input =>
        compileAccess({ ...input, command, row: column => judgedValue(column, extension) }),
      )
    const [broadcast, presence] = [await over('broadcast'), await over('presence')]
    const memberships = new Map([...broadcast.memberships, ...presence.memberships].map(inner => [inner.oid, inner]))
    return {
      by: 'memberships',
      policies: { broadcast: othersNull(broadcast.policy), presence: othersNull(presence.policy) },
      memberships: [...memberships.values()],
    }
  } catch (error) {
    if (isAskable(error))
      return {
        by: 'postgres',
        condition: await catalog.compiled(table, role, input => askedCondition({ ...input, command })),
      }
    if (!isRefusal(error)) throw error
    return { by: 'nothing', refusal: error }
  }
}

/** What one asks may be, of the row. */
function judgedValue({ name, type }: ColumnExpr, extension: Extension): Expr | null {
  switch (name) {
    case 'topic':
      return { kind: 'setting', name: topicSetting, missingOk: true, type }
    case 'extension':
      return { kind: 'const', value: extension, type }
    case 'private':
      return { kind: 'const', value: 't', type }
    default:
      return null
  }
}

/** The rest of the row. Only now: that the time is compared with a column is no less so for a column that is NULL. */
const othersNull = (policy: Predicate): Predicate =>
  mapColumns(policy, ({ type }) => ({ kind: 'const', value: null, type }))

/** Where Postgres would raise, or an operator must act: the action is nobody's, and says nothing about the other. */
const isRefusal = (error: unknown): error is TidegateError =>
  error instanceof RemedyNeeded || (error instanceof TidegateError && error.code === 'TABLE_REFUSED')

function assertColumns({ table, role, readable }: TableAccess | AskedAccess, command: Command): void {
  const missing = table.columns.filter(({ name }, i) => judgedColumns.includes(name) && !readable.has(i))
  if (missing.length === 0) return
  const names = missing.map(({ name }) => name).join(', ')
  const { schema, name } = table
  throw new TidegateError(
    'TABLE_REFUSED',
    `role ${role} may not ${command} ${names} of ${schema}.${name}: GRANT ${command} ON ${schema}.${name} TO "${role}"`,
  )
}
