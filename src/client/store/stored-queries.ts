// Rows of live queries over a reload: each query's rows, and where they stand, in one value of the store, so that there is
// never a position without its rows. Values are a user's own: role and subject stand in the key.
import type { JsonRow, OrderTerm } from '../../protocol/messages.ts'
import type { Store } from './store.ts'

export { indexedDbStore, memoryStore, type Store, webStore } from './store.ts'

/** @internal What is kept of one query. */
export interface StoredQuery {
  /** Position and tag. */
  readonly since: string
  readonly rows: readonly JsonRow[]
  readonly key: readonly string[]
  readonly order?: readonly OrderTerm[] | undefined
  readonly limit?: number | undefined
}

interface Keeper {
  /** What is to be kept now; null: nothing that is exact. */
  readonly kept: StoredQuery | null
}

/** @internal A query's place in the store. */
export interface StoredSlot {
  /** What an earlier page kept, or `leave` here. Once: after that it is old. */
  read(): StoredQuery | undefined
  /** The rows are others. */
  changed(keeper: Keeper): void
  /** They stand further on, and are the same. */
  moved(keeper: Keeper): void
  /** Nobody listens for now: what is kept can be read again. */
  leave(keeper: Keeper): void
  /** What is stored is void. */
  drop(): void
  /** Writes what was not written yet. */
  flush(): void
}

/** @internal Whose rows, and who hears of what could not be stored. */
export interface StoredContext {
  /** Base address of the service. */
  readonly address: string
  readonly report: (error: Error) => void
}

/** What a client keeps its rows by: see `storedRows`. */
export type RowStore = (context: StoredContext) => StoredQueries

export interface StoredRowsOptions {
  /** Of its keys. Default: `tidegate`. */
  readonly prefix?: string
  /** Default: 50. Past it, what was written longest ago goes. */
  readonly maxQueries?: number
  /** Of all values together. Default: 4,000,000. Past it, what was written longest ago goes; a query that is larger by itself is not kept. */
  readonly maxCharacters?: number
}

/** Keeps rows of live queries in a store, each user's for themselves: a page that is loaded again shows them at once, and gets what it
 *  missed.
 *  @example createClient(url, { token, store: storedRows(indexedDbStore()) }) */
export const storedRows =
  (store: Store, options: StoredRowsOptions = {}): RowStore =>
  context =>
    new StoredQueries(store, { ...options, ...context })

/** Of all values: another is not read. */
const version = 1
/** Written so long after the last change, and so long after the first that was not written. */
const quietMs = 500
const maxUnwrittenMs = 5000
/** A query in which nothing happens, to stay within the server's window. */
const movedMs = 30_000
/** A store that does not answer holds up nobody longer than this. */
const loadMs = 1000

/** @internal Holds what was stored until it is read, within the bounds of the store, and the names of what has not been written yet. */
export class StoredQueries {
  readonly #store: Store
  readonly #report: (error: Error) => void
  readonly #root: string
  readonly #base: string
  readonly #maxQueries: number
  readonly #maxCharacters: number
  /** Prefix of the user's keys; null: nobody is known, and nothing is read or written. */
  #user: string | null = null
  readonly #loaded = new Map<string, string>()
  /** What was written or dropped since the user is known: a store that answers late does not bring it back. As many as there are queries. */
  readonly #changed = new Set<string>()
  /** Everything under the prefix: how large, and when it was written. */
  readonly #known = new Map<string, { readonly size: number; readonly at: number }>()
  readonly #unwritten = new Map<string, Keeper>()
  #firstUnwrittenAt: number | null = null
  #timer: ReturnType<typeof setTimeout> | undefined
  #dueAt = Infinity
  readonly #working = new Set<Promise<void>>()
  readonly #leaving = (): void => void this.flush()
  readonly #hidden = (): void => {
    if (document.visibilityState === 'hidden') void this.flush()
  }

  constructor(store: Store, options: StoredContext & StoredRowsOptions) {
    const { address, report, prefix = 'tidegate', maxQueries = 50, maxCharacters = 4_000_000 } = options
    const { origin, pathname } = new URL(address)
    this.#store = store
    this.#report = report
    this.#root = `${prefix}/`
    this.#base = `${prefix}/${encodeURIComponent(origin.replace(/^ws/, 'http') + pathname.replace(/\/+$/, ''))}/`
    this.#maxQueries = maxQueries
    this.#maxCharacters = maxCharacters
  }

  /** From now on it is this user's rows that are read and written.
   *  @param onLoaded those that are stored can be read
   *  @returns when they can, or the store has taken too long to wait for it */
  async signedIn(user: string, onLoaded: () => void = () => {}): Promise<void> {
    // Once, however often: what a server renders touches no page.
    globalThis.addEventListener?.('pagehide', this.#leaving)
    globalThis.document?.addEventListener('visibilitychange', this.#hidden)
    this.#forgetUnwritten()
    this.#loaded.clear()
    this.#changed.clear()
    const own = `${this.#base}${encodeURIComponent(user)}/`
    this.#user = own
    const loaded = this.#track(
      this.#look(own).then(values => {
        if (this.#user !== own) return
        for (const [key, value] of values) if (!this.#changed.has(key)) this.#loaded.set(key, value)
        onLoaded()
      }),
    )
    let timer: ReturnType<typeof setTimeout> | undefined
    const late = new Promise<void>(resolve => {
      timer = setTimeout(resolve, loadMs)
    })
    await Promise.race([loaded, late])
    clearTimeout(timer)
  }

  /** Deletes every value of the user; where none is known, of everybody at this address. */
  forgetUser(): Promise<void> {
    const prefix = this.#user ?? this.#base
    this.#user = null
    this.#forgetUnwritten()
    this.#loaded.clear()
    return this.#track(this.#store.clear(prefix))
  }

  slot(name: string): StoredSlot {
    return {
      read: () => this.#read(name),
      changed: keeper => {
        this.#firstUnwrittenAt ??= Date.now()
        this.#later(name, keeper, Math.min(Date.now() + quietMs, this.#firstUnwrittenAt + maxUnwrittenMs))
      },
      moved: keeper => this.#later(name, keeper, Math.min(this.#dueAt, Date.now() + movedMs)),
      leave: keeper => this.#write(name, keeper, true),
      drop: () => this.#drop(name),
      flush: () => void this.flush(),
    }
  }

  /** @returns when everything is written */
  async flush(): Promise<void> {
    const isIdle = this.#unwritten.size === 0
    for (const [name, keeper] of this.#unwritten) this.#write(name, keeper, false)
    this.#forgetUnwritten()
    // Other pages write too. Behind what is written here: a page that is left has no time for two steps.
    if (!isIdle) void this.#track(this.#look(null))
    await Promise.all(this.#working)
  }

  /** Writes what there is, and listens to the page no longer. */
  close(): Promise<void> {
    globalThis.removeEventListener?.('pagehide', this.#leaving)
    globalThis.document?.removeEventListener('visibilitychange', this.#hidden)
    return this.flush()
  }

  #read(name: string): StoredQuery | undefined {
    if (this.#user === null) return undefined
    const key = this.#user + name
    const value = this.#loaded.get(key)
    if (value === undefined) return undefined
    this.#loaded.delete(key)
    const query = parseStored(value)
    if (query === null) this.#drop(name)
    return query ?? undefined
  }

  #later(name: string, keeper: Keeper, dueAt: number): void {
    if (this.#user === null) return
    this.#loaded.delete(this.#user + name)
    this.#changed.add(this.#user + name)
    this.#unwritten.set(name, keeper)
    if (dueAt === this.#dueAt) return
    clearTimeout(this.#timer)
    this.#dueAt = dueAt
    this.#timer = setTimeout(() => this.flush(), Math.max(0, dueAt - Date.now()))
    // Node alone: a process does not stay up to write.
    if (typeof this.#timer === 'object') (this.#timer as { unref?: () => void }).unref?.()
  }

  #drop(name: string): void {
    this.#unwritten.delete(name)
    if (this.#user === null) return
    const key = this.#user + name
    this.#loaded.delete(key)
    this.#changed.add(key)
    this.#delete(key)
  }

  #forgetUnwritten(): void {
    clearTimeout(this.#timer)
    this.#unwritten.clear()
    this.#firstUnwrittenAt = null
    this.#dueAt = Infinity
  }

  #write(name: string, { kept }: Keeper, canBeRead: boolean): void {
    this.#unwritten.delete(name)
    if (this.#user === null || kept === null) return
    const key = this.#user + name
    const value = JSON.stringify({ version, at: Date.now(), ...kept })
    if (canBeRead) this.#loaded.set(key, value)
    if (value.length > this.#maxCharacters) {
      this.#delete(key)
      return
    }
    this.#known.delete(key)
    this.#makeRoom(value.length)
    this.#known.set(key, { size: value.length, at: Date.now() })
    void this.#track(
      this.#store.set(key, value).catch((error: unknown) => {
        // What stands there is old: better nothing than a value that is never replaced.
        this.#delete(key)
        throw error
      }),
    )
  }

  #makeRoom(size: number): void {
    const oldestFirst = [...this.#known].sort(([, a], [, b]) => a.at - b.at)
    let total = oldestFirst.reduce((sum, [, known]) => sum + known.size, size)
    for (const [key, known] of oldestFirst) {
      if (this.#known.size < this.#maxQueries && total <= this.#maxCharacters) return
      this.#delete(key)
      total -= known.size
    }
  }

  /** Learns what is stored and was not known. @returns the values among it whose keys begin so */
  async #look(prefix: string | null): Promise<Map<string, string>> {
    const values = new Map<string, string>()
    const keys = new Set(await this.#store.keys(this.#root))
    for (const key of this.#known.keys()) if (!keys.has(key)) this.#known.delete(key)
    for (const key of keys) {
      const isWanted = prefix !== null && key.startsWith(prefix)
      if (this.#known.has(key) && !isWanted) continue
      const value = await this.#store.get(key)
      if (value === null) continue
      this.#known.set(key, { size: value.length, at: Number(/"at":(\d+)/.exec(value)?.[1] ?? 0) })
      if (isWanted) values.set(key, value)
    }
    return values
  }

  #delete(key: string): void {
    this.#known.delete(key)
    this.#loaded.delete(key)
    void this.#track(this.#store.delete(key))
  }

  /** Resolves when it is done, or has failed and that was reported. */
  #track(work: Promise<unknown>): Promise<void> {
    const done = work
      .then(
        () => {},
        (error: unknown) => {
          this.#report(new Error(`rows could not be stored: ${String(error)}`, { cause: error }))
        },
      )
      .finally(() => this.#working.delete(done))
    this.#working.add(done)
    return done
  }
}

/** @returns null when it is nothing that this version wrote */
function parseStored(text: string): StoredQuery | null {
  try {
    const { version: written, since, rows, key, order, limit } = JSON.parse(text)
    const isWhole =
      written === version &&
      typeof since === 'string' &&
      Array.isArray(rows) &&
      Array.isArray(key) &&
      rows.every(row => key.every((column: string) => row[column] !== undefined)) &&
      (order === undefined || Array.isArray(order)) &&
      (limit === undefined || rows.length <= limit)
    return isWhole ? { since, rows, key, order, limit } : null
  } catch {
    return null
  }
}
