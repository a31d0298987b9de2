// From what a role may do and one reader's claims to what decides for a channel. The row that is judged is known: so what
// is left of a policy, once topic and claims are in it, is what memberships decide, and often nothing.
import { alwaysFalse, alwaysTrue, type Predicate } from '../../../predicate/algebra.ts'
import { bind } from '../../../predicate/bind.ts'
import { allSemiJoinsOf } from '../../../predicate/columns.ts'
import { fingerprint } from '../../../predicate/fingerprint.ts'
import { TidegateError } from '../../../protocol/tidegate-error.ts'
import type { Table } from '../../catalog/table.ts'
import type { Query } from '../../route/query.ts'
import { getOrInsert } from '../../route/row-index.ts'
import type { AudienceRequest } from '../../subscribe/audiences.ts'
import { assertFollowable } from '../../subscribe/prepare.ts'
import { type ChannelAccess, topicSetting } from './guards-access.ts'
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

type Settings = readonly (readonly [name: string, value: string])[]

/** @param settings as for any reader
 *  @throws what membership tables must have and have not: IDENTITY_INSUFFICIENT, INDEX_NOT_READABLE */
export function planOf(access: ChannelAccess, topic: string, settings: Settings): Plan {
  const byName = new Map(settings)
  byName.set(topicSetting, topic)
  const { rows, asked } = judgedOf(access)
  const names = new Map<Predicate, string>()
  const judged = new Map<string, Predicate>()
  const bound = new Map<Predicate, Predicate>()
  for (const row of rows) {
    if (row === null || bound.has(row)) continue
    const predicate = boundBy(row, byName)
    bound.set(row, predicate)
    if (isConstant(predicate)) continue
    const name = fingerprint(predicate)
    names.set(predicate, name)
    if (!judged.has(name)) judged.set(name, predicate)
  }
  // In an order that is the same for all who are judged alike.
  const order = [...judged.keys()].sort()
  return {
    slots: rows.map((row, place) => {
      if (row === null) return byPostgres[place]!
      const predicate = bound.get(row)!
      const name = names.get(predicate)
      return name === undefined ? predicate.kind === 'true' : byMemberships[order.indexOf(name)]!
    }),
    memberships:
      order.length === 0 ? null : audienceOf(access, { kind: 'or', args: order.map(name => judged.get(name)!) }),
    asked,
  }
}

/** What is left to know of a plan once somebody stands by it: the same object for all who look their answers up alike. A plan of
 *  its own for each of five thousand members took 0.2 kB more of each. */
export function standingPlan(access: ChannelAccess, { slots, asked }: Plan): Plan {
  const { standing } = judgedOf(access)
  return getOrInsert(standing, JSON.stringify(slots), () => ({ slots, memberships: null, asked }))
}

const slotsBy = (by: 'memberships' | 'postgres'): readonly Slot[] =>
  Array.from({ length: places }, (_, at) => ({ by, at }))
const byMemberships = slotsBy('memberships')
const byPostgres = slotsBy('postgres')

const isConstant = ({ kind }: Predicate): boolean => kind === 'true' || kind === 'false' || kind === 'unknown'

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

/** By place. */
interface Judged {
  /** Policies over the row `{topic, extension, private: true}`, whose other columns are NULL; equal ones are the same object. Null
   *  where Postgres is asked. */
  readonly rows: readonly (Predicate | null)[]
  readonly asked: Plan['asked']
  /** Tables of the policies' semi-joins. */
  readonly memberships: readonly Table[]
  /** By slots, of which there are a few combinations. */
  readonly standing: Map<string, Plan>
}

const known = new WeakMap<ChannelAccess, Judged>()

function judgedOf(access: ChannelAccess): Judged {
  let found = known.get(access)
  if (found === undefined) {
    const distinct = new Map<string, Predicate>()
    const asked: (string | null)[] = []
    const rows = actions.flatMap(action =>
      extensions.map(extension => {
        const deciding = access.deciding[action]
        asked.push(deciding.by === 'postgres' ? deciding.condition : null)
        if (deciding.by === 'postgres') return null
        if (deciding.by === 'nothing') return alwaysFalse
        const row = deciding.policies[extension]
        return getOrInsert(distinct, fingerprint(row), () => row)
      }),
    )
    found = {
      rows,
      asked: asked.some(condition => condition !== null) ? asked : null,
      memberships: membershipsOf(access),
      standing: new Map(),
    }
    known.set(access, found)
  }
  return found
}

function membershipsOf({ deciding }: ChannelAccess): readonly Table[] {
  const memberships = new Map<number, Table>()
  for (const action of actions) {
    const each = deciding[action]
    if (each.by === 'memberships') for (const inner of each.memberships) memberships.set(inner.oid, inner)
  }
  return [...memberships.values()]
}

function audienceOf(access: ChannelAccess, predicate: Predicate): AudienceRequest {
  const { memberships } = judgedOf(access)
  assertFollowable(allSemiJoinsOf(predicate), memberships)
  return { query: channelQuery(access.table), predicate, memberships }
}

const queries = new WeakMap<Table, Omit<Query, 'number' | 'text'>>()

/** All guards have it in common. */
export function channelQuery(table: Table): Omit<Query, 'number' | 'text'> {
  let query = queries.get(table)
  if (query === undefined) {
    query = { kind: 'channel', table: channelTable(table), filter: alwaysTrue, columns: [], events: null }
    queries.set(table, query)
  }
  return query
}

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
