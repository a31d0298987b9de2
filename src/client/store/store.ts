// Where a client keeps rows over a reload: texts by key, in memory, in a page's Storage, or in IndexedDB.

/** Calls take effect in the order in which they are made, also where nobody waits for one before the next. Each may fail; the client then
 *  goes on without what it could not keep. */
export interface Store {
  /** Reads one value. @returns null where there is none */
  get(key: string): Promise<string | null>
  /** Puts it in the place of what was there. */
  set(key: string, value: string): Promise<void>
  /** Does nothing where there is none. */
  delete(key: string): Promise<void>
  /** All keys that begin so. */
  keys(prefix: string): Promise<string[]>
  /** Deletes everything whose key begins so. */
  clear(prefix: string): Promise<void>
}

/** For tests, and for a server that renders: gone with the process. */
export function memoryStore(): Store {
  const values = new Map<string, string>()
  const keys = (prefix: string): string[] => [...values.keys()].filter(key => key.startsWith(prefix))
  return {
    get: async key => values.get(key) ?? null,
    set: async (key, value) => void values.set(key, value),
    delete: async key => void values.delete(key),
    keys: async prefix => keys(prefix),
    clear: async prefix => {
      for (const key of keys(prefix)) values.delete(key)
    },
  }
}

/** Keeps rows in a page's storage.
 *  @param storage `localStorage`, or `sessionStorage` to keep rows as long as the tab. About five million characters of a browser's
 *  origin; `set` fails past that. */
export function webStore(storage: Pick<Storage, 'length' | 'key' | 'getItem' | 'setItem' | 'removeItem'>): Store {
  const keys = (prefix: string): string[] =>
    Array.from({ length: storage.length }, (_, at) => storage.key(at)).filter(key =>
      key?.startsWith(prefix),
    ) as string[]
  return {
    get: async key => storage.getItem(key),
    set: async (key, value) => storage.setItem(key, value),
    delete: async key => storage.removeItem(key),
    keys: async prefix => keys(prefix),
    clear: async prefix => {
      for (const key of keys(prefix)) storage.removeItem(key)
    },
  }
}

const table = 'values'

/** Keeps rows in IndexedDB, where there is room for more.
 *  @param name of the database, which belongs to the page's origin; it has one object store */
export function indexedDbStore(name = 'tidegate'): Store {
  let opened: Promise<IDBDatabase> | null = null
  const open = (): Promise<IDBDatabase> => {
    opened ??= new Promise((resolve, reject) => {
      const request = indexedDB.open(name, 1)
      request.onupgradeneeded = () => request.result.createObjectStore(table)
      request.onerror = () => reject(request.error)
      request.onsuccess = () => {
        const database = request.result
        // Another page that deletes or changes it must not wait for this one.
        database.onversionchange = database.onclose = () => {
          database.close()
          opened = null
        }
        resolve(database)
      }
    })
    // Tried anew the next time.
    opened.catch(() => {
      opened = null
    })
    return opened
  }
  const run = async <T>(mode: IDBTransactionMode, ask: (values: IDBObjectStore) => IDBRequest<T>): Promise<T> => {
    const transaction = (await open()).transaction(table, mode)
    return new Promise((resolve, reject) => {
      const request = ask(transaction.objectStore(table))
      // A page that is being left hears of nothing any more, and would not commit by itself.
      transaction.commit()
      transaction.oncomplete = () => resolve(request.result)
      transaction.onabort = transaction.onerror = () => reject(transaction.error ?? request.error)
    })
  }
  const range = (prefix: string): IDBKeyRange => IDBKeyRange.bound(prefix, `${prefix}\uffff`)
  return {
    get: async key => ((await run<unknown>('readonly', values => values.get(key))) as string | undefined) ?? null,
    set: async (key, value) => void (await run('readwrite', values => values.put(value, key))),
    delete: async key => void (await run('readwrite', values => values.delete(key))),
    keys: async prefix => (await run('readonly', values => values.getAllKeys(range(prefix)))) as string[],
    clear: async prefix => void (await run('readwrite', values => values.delete(range(prefix)))),
  }
}
