// What the bindings of a channel are to its session: one subscription for each binding and table, and for all bindings that ask the same
// of a table, since a session takes a query once.
import type { ClientFrame, ErrorEvent } from '../../../protocol/messages.ts'
import { TidegateError } from '../../../protocol/tidegate-error.ts'
import type { Principal, Subscriptions } from '../../subscribe/subscription.ts'
import { isWildcard, subscribeFrameOf } from './bindings.ts'
import type { ChangeTarget } from './change-frames.ts'
import { type TableName, tablesOf } from './tables.ts'
import type { Binding } from './wire.ts'

/** The native id of the channel itself; those of its bindings follow. */
export const channelId = 1

/** Under which a stand holds where the channel itself stood. */
export const channelEntry = 'channel'

export interface Entry {
  readonly id: number
  readonly binding: Binding
  /** Of the bindings that ask the same, this one's first. */
  readonly bindingIds: number[]
  readonly frame: Extract<ClientFrame, { type: 'subscribe' }>
  /** The same for the same binding and table, also after a reconnect. */
  readonly name: string
  /** Its bindings mean whatever tables there are. */
  isOfMany: boolean
  hasStood: boolean
  /** Made when its first event comes. */
  target: ChangeTarget | null
}

/** What a subscription was refused for. */
export interface Refused {
  readonly id: number
  readonly error: ErrorEvent
}

export interface Entries {
  /** By native id: at most `max`. */
  readonly byId: Map<number, Entry>
  /** Bindings that mean nothing. */
  readonly refused: readonly Refused[]
  /** There is a binding that means whatever tables there are. */
  readonly isOfAll: boolean
  /** One stands no more: its table counts as one that there was not. */
  lose(id: number): Entry | null
  /** Those of tables that there were not before. */
  addTables(): Promise<readonly Entry[]>
}

/** @param firstId native ids are given from here
 *  @param max a binding for which more would be needed is refused
 *  @throws ROLE_REFUSED */
export async function entriesOf(
  subscriptions: Subscriptions,
  principal: Principal,
  bindings: readonly Binding[],
  { firstId, max }: { readonly firstId: number; readonly max: number },
): Promise<Entries> {
  const byId = new Map<number, Entry>()
  const refused: Refused[] = []
  let nextId = firstId
  const distinct = [...new Map(bindings.map(binding => [binding.id, binding])).values()]
  const byQuery = new Map<string, Entry>()
  const entered = new Set<string>()
  /** @returns null where another binding asks the same */
  const enter = (binding: Binding, table: TableName): Entry | null => {
    const frame = subscribeFrameOf(binding, table, nextId)
    const query = queryOf(frame)
    const name = nameOf(binding, table)
    entered.add(name)
    const same = byQuery.get(query)
    if (same !== undefined) {
      same.bindingIds.push(binding.id)
      same.isOfMany &&= isWildcard(binding)
      return null
    }
    if (byId.size >= max)
      throw new TidegateError(
        'TOO_MANY_SUBSCRIPTIONS',
        `a channel asks for at most ${max} tables, and as many filters; open another, or raise MAX_SUBSCRIPTIONS`,
      )
    const entry = {
      id: nextId,
      binding,
      bindingIds: [binding.id],
      frame,
      name,
      isOfMany: isWildcard(binding),
      hasStood: false,
      target: null,
    }
    nextId += 1
    byQuery.set(query, entry)
    byId.set(entry.id, entry)
    return entry
  }
  const all = distinct.some(isWildcard) ? await subscriptions.tables(principal) : []
  for (const binding of distinct) {
    try {
      const tables = tablesOf(binding, all)
      if (isWildcard(binding)) subscribeFrameOf(binding, { schema: 'public', table: 'any' }, 0)
      for (const table of tables) enter(binding, table)
    } catch (error) {
      if (!(error instanceof TidegateError)) throw error
      refused.push({ id: 0, error: { code: error.code, message: error.message, retry: false } })
    }
  }
  return {
    byId,
    refused,
    isOfAll: distinct.some(isWildcard),
    lose: id => {
      const entry = byId.get(id)
      if (entry === undefined) return null
      byId.delete(id)
      byQuery.delete(queryOf(entry.frame))
      const table = entry.name.slice(entry.name.indexOf('/'))
      for (const bindingId of entry.bindingIds) entered.delete(`${bindingId}${table}`)
      return entry
    },
    addTables: async () => {
      const now = await subscriptions.tables(principal)
      return distinct
        .filter(isWildcard)
        .flatMap(binding => tablesOf(binding, now).map(table => ({ binding, table })))
        .filter(({ binding, table }) => !entered.has(nameOf(binding, table)))
        .slice(0, max - byId.size)
        .map(({ binding, table }) => enter(binding, table))
        .filter(entry => entry !== null)
    },
  }
}

const nameOf = ({ id }: Binding, { schema, table }: TableName): string => `${id}/${schema}.${table}`

const queryOf = (frame: Entry['frame']): string => JSON.stringify({ ...frame, id: 0 })
