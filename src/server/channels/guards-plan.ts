// From what a role may do and one reader's claims to what decides for a channel. The row that is judged is known: so what
// is left of a policy, once topic and claims are in it, is what memberships decide, and often nothing.
import { alwaysFalse, alwaysTrue, type Expr, type Predicate } from '../../predicate/algebra.ts'
import { bind } from '../../predicate/bind.ts'
import { allSemiJoinsOf, columnsOf } from '../../predicate/columns.ts'
import { fingerprint } from '../../predicate/fingerprint.ts'
import { type ColumnExpr, mapColumns } from '../../predicate/map-columns.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Table } from '../catalog/table.ts'
import type { Query } from '../route/query.ts'
import type { AudienceRequest } from '../subscribe/audiences.ts'
import { assertFollowable } from '../subscribe/prepare.ts'
import type { ChannelAccess, Deciding } from './guards-access.ts'
import type { Action, Extension } from './permission.ts'

/** What answers one of the four questions: nobody, because it is known, or the n-th truth of those who are asked. */
export type Slot = boolean | { readonly by: 'memberships' | 'postgres'; readonly at: number }

export interface Plan {
  /** By `placeOf`. */
  readonly slots: readonly Slot[]
  /** An OR of what is to be judged, whose parts are judged each by itself; null when memberships decide nothing. */
  readonly memberships: AudienceRequest | null
  /** What Postgres is asked, by place; null when nothing. */
  readonly asked: readonly (string | null)[] | null
}

const actions: readonly Action[] = ['receive', 'send']
const extensions: readonly Extension[] = ['broadcast', 'presence']

export const places = 4

export const placeOf = (action: Action, extension: Extension): number =>
  (action === 'send' ? 2 : 0) + (extension === 'presence' ? 1 : 0)

export const extensionAt = (place: number): Extension => extensions[place % 2]!

/** `realtime.topic()` reads it. */
export const topicSetting = 'realtime.topic'

type Settings = readonly (readonly [name: string, value: string])[]

/** @param settings as for any reader
 *  @throws what membership tables must have and have not: IDENTITY_INSUFFICIENT, INDEX_NOT_READABLE */
export function planOf({ table, deciding }: ChannelAccess, topic: string, settings: Settings): Plan {
  const byName = new Map(settings)
  byName.set(topicSetting, topic)
  const bound = actions.flatMap(action => boundOf(deciding[action], byName))
  const judged = new Map<string, Predicate>()
  for (const each of bound) if (each !== null && !isConstant(each)) judged.set(fingerprint(each), each)
  const names = [...judged.keys()].sort()
  const slots = bound.map((each, place): Slot => {
    if (each === null) return byPostgres[place]!
    return isConstant(each) ? each.kind === 'true' : byMemberships[names.indexOf(fingerprint(each))]!
  })
  const asked = actions.flatMap(action => {
    const each = deciding[action]
    return extensions.map(() => (each.by === 'postgres' ? each.condition : null))
  })
  return {
    slots,
    memberships:
      names.length === 0
        ? null
        : audienceOf(
            table,
            names.map(name => judged.get(name)!),
            deciding,
          ),
    asked: asked.some(condition => condition !== null) ? asked : null,
  }
}

const slotsBy = (by: 'memberships' | 'postgres'): readonly Slot[] =>
  Array.from({ length: places }, (_, at) => ({ by, at }))
const byMemberships = slotsBy('memberships')
const byPostgres = slotsBy('postgres')

const isConstant = ({ kind }: Predicate): boolean => kind === 'true' || kind === 'false' || kind === 'unknown'

/** For both extensions; null where Postgres is asked. */
function boundOf(deciding: Deciding, settings: ReadonlyMap<string, string>): (Predicate | null)[] {
  if (deciding.by === 'postgres') return [null, null]
  if (deciding.by === 'nothing') return [alwaysFalse, alwaysFalse]
  const [broadcast, presence] = rowsOf(deciding)
  const first = boundBy(broadcast, settings)
  return [first, presence === broadcast ? first : boundBy(presence, settings)]
}

/** Where the claims or the topic make Postgres raise, nothing is let through. */
function boundBy(policy: Predicate, settings: ReadonlyMap<string, string>): Predicate {
  try {
    return bind(
      policy,
      name => settings.get(name),
      name => name === topicSetting,
    )
  } catch (error) {
    if (error instanceof TidegateError && error.code === 'CLAIM_INVALID') return alwaysFalse
    throw error
  }
}

const known = new WeakMap<Predicate, readonly [broadcast: Predicate, presence: Predicate]>()

/** A policy over the row `{topic, extension, private: true}`, whose other columns are NULL; the same predicate twice where it
 *  does not read the extension. */
function rowsOf({ policy }: Extract<Deciding, { by: 'memberships' }>): readonly [Predicate, Predicate] {
  let rows = known.get(policy)
  if (rows === undefined) {
    const over = (extension: Extension): Predicate => mapColumns(policy, column => judgedValue(column, extension))
    const broadcast = over('broadcast')
    const presence = over('presence')
    rows = [broadcast, fingerprint(broadcast) === fingerprint(presence) ? broadcast : presence]
    known.set(policy, rows)
  }
  return rows
}

function judgedValue({ name, type }: ColumnExpr, extension: Extension): Expr {
  switch (name) {
    case 'topic':
      return { kind: 'setting', name: topicSetting, missingOk: true, type }
    case 'extension':
      return { kind: 'const', value: extension, type }
    case 'private':
      return { kind: 'const', value: 't', type }
    default:
      return { kind: 'const', value: null, type }
  }
}

function audienceOf(table: Table, judged: readonly Predicate[], deciding: ChannelAccess['deciding']): AudienceRequest {
  const predicate: Predicate = { kind: 'or', args: judged }
  const memberships = new Map<number, Table>()
  for (const action of actions) {
    const each = deciding[action]
    if (each.by === 'memberships') for (const inner of each.memberships) memberships.set(inner.oid, inner)
  }
  assertFollowable(allSemiJoinsOf(predicate), [...memberships.values()])
  if (columnsOf(predicate).size > 0) throw new Error('a column of the row that is judged is left in its policy')
  return {
    query: channelQuery(table),
    predicate,
    memberships: [...memberships.values()],
  }
}

/** All guards have it in common. */
export const channelQuery = (table: Table): Omit<Query, 'number' | 'text'> => ({
  kind: 'channel',
  table: channelTable(table),
  filter: alwaysTrue,
  columns: [],
  events: null,
})

/** Nothing of its rows is looked at: what becomes of its columns and partitions matters to nobody who stands. */
const channelTable = ({ oid, schema, name, rowSecurity, forceRowSecurity }: Table): Table => ({
  oid,
  schema,
  name,
  columns: [],
  primaryKey: [],
  identity: new Set(),
  replicaIdentity: 'nothing',
  partitioned: false,
  rowSecurity,
  forceRowSecurity,
  published: true,
  readThrough: null,
})

/** Whether two plans give the same answers, as far as this can be told without asking. @param keyOf an audience's key */
export function isSamePlan(a: Plan, b: Plan, keyOf: (request: AudienceRequest) => string): boolean {
  const nameOf = ({ slots, memberships, asked }: Plan): string =>
    JSON.stringify([slots, memberships === null ? null : keyOf(memberships), asked])
  return nameOf(a) === nameOf(b)
}
