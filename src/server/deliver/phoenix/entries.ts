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
  readonly table: TableName
  /** Of the other bindings that ask the same. */
  others: readonly number[]
  readonly frame: SubscribeFrame
  /** Its bindings mean whatever tables there are. */
  isOfMany: boolean
  hasStood: boolean
  /** Made when its first event comes. */
  target: ChangeTarget | null
}

type SubscribeFrame = Extract<ClientFrame, { type: 'subscribe' }>

/** The same for the same binding and table, also after a reconnect. */
export const nameOf = ({ binding, table }: Pick<Entry, 'binding' | 'table'>): string =>
  `${binding.id}/${table.schema}.${table.table}`

/** What a subscription was refused for. */
export interface Refused {
  readonly id: number
  readonly error: ErrorEvent
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
  const entries = new Entries(subscriptions, principal, bindings, firstId, max)
  await entries.begin()
  return entries
}

// Mostly one entry: what would be maps by id, name and query is looked for in the list, which holds at most `max`.
export class Entries {
  /** Of native ids that rise. */
  #list: readonly Entry[] = []
  /** Bindings that mean nothing. */
  refused: readonly Refused[] = noneRefused
  readonly #subscriptions: Subscriptions
  readonly #principal: Principal
  /** No two of the same id. */
  readonly #bindings: readonly Binding[]
  readonly #max: number
  #nextId: number

  constructor(
    subscriptions: Subscriptions,
    principal: Principal,
    bindings: readonly Binding[],
    firstId: number,
    max: number,
  ) {
    this.#subscriptions = subscriptions
    this.#principal = principal
    this.#bindings = bindings
    this.#nextId = firstId
    this.#max = max
  }

  get size(): number {
    return this.#list.length
  }

  /** There is a binding that means whatever tables there are. */
  get isOfAll(): boolean {
    return this.#bindings.some(isWildcard)
  }

  [Symbol.iterator](): Iterator<Entry> {
    return this.#list[Symbol.iterator]()
  }

  of(id: number): Entry | null {
    for (const entry of this.#list) if (entry.id === id) return entry
    return null
  }

  /** What a stand calls it. */
  nameOf(id: number): string | null {
    const entry = this.of(id)
    return entry === null ? null : nameOf(entry)
  }

  /** @throws ROLE_REFUSED */
  async begin(): Promise<void> {
    const all = this.isOfAll ? await this.#subscriptions.tables(this.#principal) : []
    for (const binding of this.#bindings) {
      try {
        const tables = tablesOf(binding, all)
        if (isWildcard(binding)) subscribeFrameOf(binding, { schema: 'public', table: 'any' }, 0)
        for (const table of tables) this.#enter(binding, table)
      } catch (error) {
        if (!(error instanceof TidegateError)) throw error
        this.refused = [...this.refused, { id: 0, error: { code: error.code, message: error.message, retry: false } }]
      }
    }
  }

  /** One stands no more: its table counts as one that there was not. */
  lose(id: number): Entry | null {
    const lost = this.of(id)
    if (lost !== null) this.#list = this.#list.filter(entry => entry !== lost)
    return lost
  }

  /** Those of tables that there were not before. */
  async addTables(): Promise<readonly Entry[]> {
    const now = await this.#subscriptions.tables(this.#principal)
    return this.#bindings
      .filter(isWildcard)
      .flatMap(binding => tablesOf(binding, now).map(table => ({ binding, table })))
      .filter(({ binding, table }) => !this.#isEntered(binding, table))
      .slice(0, this.#max - this.size)
      .map(({ binding, table }) => this.#enter(binding, table))
      .filter(entry => entry !== null)
  }

  #isEntered({ id }: Binding, { schema, table }: TableName): boolean {
    return this.#list.some(
      entry =>
        entry.table.schema === schema &&
        entry.table.table === table &&
        (entry.binding.id === id || entry.others.includes(id)),
    )
  }

  /** @returns null where another binding asks the same */
  #enter(binding: Binding, table: TableName): Entry | null {
    const frame = frameOf(binding, table, this.#nextId)
    const same = this.#list.find(entry => asksTheSame(entry.frame, frame))
    if (same !== undefined) {
      same.others = [...same.others, binding.id]
      same.isOfMany &&= isWildcard(binding)
      return null
    }
    if (this.size >= this.#max)
      throw new TidegateError(
        'TOO_MANY_SUBSCRIPTIONS',
        `a channel asks for at most ${this.#max} tables, and as many filters; open another, or raise MAX_SUBSCRIPTIONS`,
      )
    const isOfMany = isWildcard(binding)
    const id = this.#nextId
    const entry = { id, binding, table, others: noOthers, frame, isOfMany, hasStood: false, target: null }
    this.#nextId += 1
    this.#list = this.#list.concat(entry)
    return entry
  }
}

const noOthers: readonly number[] = []
const noneRefused: readonly Refused[] = []

/** Channels that join alike share their bindings, and so these. */
const frames = new WeakMap<Binding, SubscribeFrame>()

/** @throws as `subscribeFrameOf` */
function frameOf(binding: Binding, table: TableName, id: number): SubscribeFrame {
  if (isWildcard(binding)) return subscribeFrameOf(binding, table, id)
  let frame = frames.get(binding)
  if (frame?.id !== id) {
    frame = subscribeFrameOf(binding, table, id)
    frames.set(binding, frame)
  }
  return frame
}

const asksTheSame = (one: SubscribeFrame, other: SubscribeFrame): boolean =>
  one.table === other.table &&
  one.filter === other.filter &&
  isSameList(one.select, other.select) &&
  isSameList(one.events, other.events)

const isSameList = (one: readonly string[] | undefined, other: readonly string[] | undefined): boolean =>
  one === other || (one !== undefined && other !== undefined && one.join('\0') === other.join('\0'))
