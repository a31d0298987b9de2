import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { memoryStore, type Store, webStore } from '../../../src/client/store/store.ts'
import {
  type StoredContext,
  StoredQueries,
  type StoredQuery,
  type StoredRowsOptions,
} from '../../../src/client/store/stored-queries.ts'
import { userOf } from '../../../src/client/store/user-of.ts'

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

const alice = '["member","alice"]'
const bob = '["member","bob"]'
const query = (id: number, since = `0a0b0c0d-${id.toString(16)}.tag`): StoredQuery => ({
  since,
  rows: [{ id }],
  key: ['id'],
})
const keeping = (kept: StoredQuery | null): { kept: StoredQuery | null } => ({ kept })

async function stored(
  options: Partial<StoredContext> & StoredRowsOptions & { store?: Store; user?: string } = {},
): Promise<{ stored: StoredQueries; store: Store; errors: Error[] }> {
  const { store = memoryStore(), user = alice, ...rest } = options
  const errors: Error[] = []
  const queries = new StoredQueries(store, {
    address: 'https://tide.example.com/base/',
    report: error => errors.push(error),
    ...rest,
  })
  await queries.signedIn(user)
  return { stored: queries, store, errors }
}

/** What a later page reads. */
const reread = async (store: Store, name: string, user = alice): Promise<StoredQuery | undefined> =>
  (await stored({ store, user })).stored.slot(name).read()

test('[P4] rows, key and position are one value, under prefix, address, user and query', async () => {
  const { stored: queries, store } = await stored()
  queries.slot('q').changed(keeping({ ...query(1), order: [], limit: 3 }))
  await queries.flush()
  const keys = await store.keys('')
  expect(keys).toEqual([
    `tidegate/${encodeURIComponent('https://tide.example.com/base')}/${encodeURIComponent(alice)}/q`,
  ])
  expect(JSON.parse((await store.get(keys[0]!))!)).toMatchObject(query(1))
  expect(await reread(store, 'q')).toEqual({ ...query(1), order: [], limit: 3 })
})

test('a burst is written once it is quiet, and one that never ends every five seconds', async () => {
  const { stored: queries, store } = await stored()
  const set = vi.spyOn(store, 'set')
  const slot = queries.slot('q')
  for (let at = 0; at < 3; at++) {
    slot.changed(keeping(query(at)))
    await vi.advanceTimersByTimeAsync(400)
  }
  expect(set).not.toHaveBeenCalled()
  await vi.advanceTimersByTimeAsync(100)
  expect(set).toHaveBeenCalledTimes(1)
  for (let at = 0; at < 30; at++) {
    slot.changed(keeping(query(at)))
    await vi.advanceTimersByTimeAsync(400)
  }
  expect(set).toHaveBeenCalledTimes(3)
})

test('a position that moves alone is written now and then, and does not put off rows that changed', async () => {
  const { stored: queries, store } = await stored()
  const set = vi.spyOn(store, 'set')
  queries.slot('quiet').moved(keeping(query(1)))
  await vi.advanceTimersByTimeAsync(29_000)
  expect(set).not.toHaveBeenCalled()
  queries.slot('busy').changed(keeping(query(2)))
  queries.slot('quiet').moved(keeping(query(3)))
  await vi.advanceTimersByTimeAsync(500)
  expect(set).toHaveBeenCalledTimes(2)
  expect(await reread(store, 'quiet')).toEqual(query(3))
})

test('rows that are not exact when it is time to write leave what is stored as it is', async () => {
  const { stored: queries, store } = await stored()
  queries.slot('q').changed(keeping(query(1)))
  await queries.flush()
  queries.slot('q').changed(keeping(null))
  await queries.flush()
  expect(await reread(store, 'q')).toEqual(query(1))
})

test('a page that is hidden or left writes at once', async () => {
  const page = new EventTarget()
  const tab = Object.assign(new EventTarget(), { visibilityState: 'visible' })
  vi.stubGlobal('addEventListener', page.addEventListener.bind(page))
  vi.stubGlobal('removeEventListener', page.removeEventListener.bind(page))
  vi.stubGlobal('document', tab)
  try {
    const { stored: queries, store } = await stored()
    queries.slot('q').changed(keeping(query(1)))
    tab.visibilityState = 'hidden'
    tab.dispatchEvent(new Event('visibilitychange'))
    await vi.advanceTimersByTimeAsync(0)
    expect(await reread(store, 'q')).toEqual(query(1))
    tab.visibilityState = 'visible'
    queries.slot('q').changed(keeping(query(2)))
    page.dispatchEvent(new Event('pagehide'))
    await vi.advanceTimersByTimeAsync(0)
    expect(await reread(store, 'q')).toEqual(query(2))
    await queries.close()
    queries.slot('q').changed(keeping(query(3)))
    page.dispatchEvent(new Event('pagehide'))
    await vi.advanceTimersByTimeAsync(0)
    expect(await reread(store, 'q')).toEqual(query(2))
  } finally {
    vi.unstubAllGlobals()
  }
})

test('[P2] nobody reads or writes what is another user’s, also when the user changes before it is written', async () => {
  const { stored: queries, store } = await stored()
  queries.slot('q').changed(keeping(query(1)))
  await queries.flush()
  expect(await reread(store, 'q', bob)).toBe(undefined)
  queries.slot('q').changed(keeping(query(2)))
  await queries.signedIn(bob)
  await vi.advanceTimersByTimeAsync(10_000)
  expect(await reread(store, 'q', bob)).toBe(undefined)
  expect(await reread(store, 'q', alice)).toEqual(query(1))
})

test('a user’s values go when the user leaves, those of others and of other addresses stay', async () => {
  const store = memoryStore()
  const others: [Partial<StoredContext> & StoredRowsOptions, string][] = [
    [{}, bob],
    [{ address: 'https://tide.example.com' }, alice],
    [{ prefix: 'other' }, alice],
  ]
  for (const [options, user] of others) {
    const { stored: queries } = await stored({ store, user, ...options })
    queries.slot('q').changed(keeping(query(1)))
    await queries.flush()
  }
  const { stored: queries } = await stored({ store })
  queries.slot('a').changed(keeping(query(1)))
  await queries.flush()
  queries.slot('b').changed(keeping(query(2)))
  await queries.forgetUser()
  queries.slot('c').changed(keeping(query(3)))
  await vi.advanceTimersByTimeAsync(10_000)
  expect(await store.keys('')).toHaveLength(others.length)
})

test('where nobody is known, leaving deletes everybody’s values of this address', async () => {
  const { stored: queries, store } = await stored()
  queries.slot('q').changed(keeping(query(1)))
  await queries.flush()
  const fresh = new StoredQueries(store, { address: 'wss://tide.example.com/base', report: () => {} })
  await fresh.forgetUser()
  expect(await store.keys('')).toEqual([])
})

test.each([
  ['no JSON', '{'],
  ['of another version', JSON.stringify({ version: 0, ...query(1) })],
  ['without a position', JSON.stringify({ version: 1, rows: [], key: ['id'] })],
  ['with a row that lacks its key', JSON.stringify({ version: 1, ...query(1), rows: [{ other: 1 }] })],
  ['with a row that is none', JSON.stringify({ version: 1, ...query(1), rows: [null] })],
  ['with more rows than its limit', JSON.stringify({ version: 1, ...query(1), limit: 0 })],
])('a value that is %s is dropped', async (_, value) => {
  const { stored: queries, store } = await stored()
  queries.slot('q').changed(keeping(query(1)))
  await queries.flush()
  const [key = ''] = await store.keys('')
  await store.set(key, value)
  const later = await stored({ store })
  expect(later.stored.slot('q').read()).toBe(undefined)
  await later.stored.flush()
  expect(await store.keys('')).toEqual([])
})

test('a value is read once: after that the rows that are held are newer', async () => {
  const { stored: queries, store } = await stored()
  queries.slot('q').changed(keeping(query(1)))
  await queries.flush()
  const slot = (await stored({ store })).stored.slot('q')
  expect(slot.read()).toEqual(query(1))
  expect(slot.read()).toBe(undefined)
})

test('[P7] past the number of queries, what was written longest ago goes; whatever page wrote it', async () => {
  const store = memoryStore()
  for (const name of ['a', 'b', 'c', 'd']) {
    vi.advanceTimersByTime(10)
    const { stored: queries } = await stored({ store, maxQueries: 3 })
    queries.slot(name).changed(keeping(query(1)))
    if (name === 'c') queries.slot('a').changed(keeping(query(2)))
    await queries.flush()
  }
  expect((await store.keys('')).map(key => key.at(-1)).sort()).toEqual(['a', 'c', 'd'])
})

test('[P7] past the size, what was written longest ago goes; one query that is too large is not kept', async () => {
  const large = (text: string): StoredQuery => ({ ...query(1), rows: [{ id: 1, text }] })
  const { stored: queries, store } = await stored({ maxCharacters: 1000 })
  for (const name of ['a', 'b', 'c']) {
    vi.advanceTimersByTime(10)
    queries.slot(name).changed(keeping(large('x'.repeat(300))))
    await queries.flush()
  }
  expect((await store.keys('')).map(key => key.at(-1))).toEqual(['b', 'c'])
  queries.slot('b').changed(keeping(large('x'.repeat(2000))))
  await queries.flush()
  expect((await store.keys('')).map(key => key.at(-1))).toEqual(['c'])
})

test('a store that fails is reported, keeps no old value, and the next write is tried', async () => {
  const store = memoryStore()
  const { stored: queries, errors } = await stored({ store })
  queries.slot('q').changed(keeping(query(1)))
  await queries.flush()
  vi.spyOn(store, 'set').mockRejectedValueOnce(new Error('QuotaExceededError'))
  queries.slot('q').changed(keeping(query(2)))
  await queries.flush()
  expect(errors.map(String)).toEqual([expect.stringContaining('QuotaExceededError')])
  expect(await store.keys('')).toEqual([])
  queries.slot('q').changed(keeping(query(3)))
  await queries.flush()
  expect(await reread(store, 'q')).toEqual(query(3))
})

async function keep(store: Store, name: string, value: StoredQuery): Promise<void> {
  const queries = new StoredQueries(store, { address: 'https://tide.example.com', report: () => {} })
  await queries.signedIn(alice)
  queries.slot(name).changed(keeping(value))
  await queries.close()
}

test('a store that does not answer holds nobody up', async () => {
  const store = { ...memoryStore(), keys: () => new Promise<string[]>(() => {}) }
  const queries = new StoredQueries(store, { address: 'https://tide.example.com', report: () => {} })
  const signedIn = vi.fn()
  void queries.signedIn(alice).then(signedIn)
  await vi.advanceTimersByTimeAsync(999)
  expect(signedIn).not.toHaveBeenCalled()
  await vi.advanceTimersByTimeAsync(1)
  expect(signedIn).toHaveBeenCalled()
})

test('a store that answers late is heard all the same, but for what was dropped or written meanwhile', async () => {
  const store = memoryStore()
  for (const name of ['kept', 'dropped']) await keep(store, name, query(1))
  const { promise: answer, resolve } = Promise.withResolvers<void>()
  const slow = { ...store, keys: (prefix: string) => answer.then(() => store.keys(prefix)) }
  const queries = new StoredQueries(slow, { address: 'https://tide.example.com', report: () => {} })
  const onLoaded = vi.fn()
  const signingIn = queries.signedIn(alice, onLoaded)
  await vi.advanceTimersByTimeAsync(1000)
  await signingIn
  queries.slot('dropped').drop()
  expect(queries.slot('kept').read()).toBe(undefined)
  resolve()
  await vi.waitFor(() => expect(onLoaded).toHaveBeenCalled())
  expect(queries.slot('kept').read()).toEqual(query(1))
  expect(queries.slot('dropped').read()).toBe(undefined)
})

const jwt = (claims: object): string => `h.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.s`

test('a user is role and subject of the token, whatever else it says', () => {
  const one = userOf(jwt({ role: 'member', sub: 'ä?>~', exp: 1 }))
  expect(one).toBe(userOf(jwt({ role: 'member', sub: 'ä?>~', exp: 2, jti: 'x', room: 7 })))
  expect(one).not.toBe(userOf(jwt({ role: 'admin', sub: 'ä?>~' })))
  expect(one).not.toBe(userOf(jwt({ role: 'member', sub: 'b' })))
})

test('a token without a subject is told by its other claims; one that is no JWT names nobody', () => {
  expect(userOf(jwt({ role: 'anon', tenant: 1, exp: 1 }))).toBe(userOf(jwt({ role: 'anon', tenant: 1, exp: 2 })))
  expect(userOf(jwt({ role: 'anon', tenant: 1 }))).not.toBe(userOf(jwt({ role: 'anon', tenant: 2 })))
  for (const token of ['', 'abc', 'a.b.c', 'a.!.c', `a.${btoa('7')}.c`, `a.${btoa('null')}.c`])
    expect(userOf(token)).toBe(null)
})

/** What `localStorage` is to a page. */
class PageStorage implements Pick<Storage, 'length' | 'key' | 'getItem' | 'setItem' | 'removeItem'> {
  readonly #values = new Map<string, string>()
  get length(): number {
    return this.#values.size
  }
  key = (at: number): string | null => [...this.#values.keys()][at] ?? null
  getItem = (key: string): string | null => this.#values.get(key) ?? null
  setItem = (key: string, value: string): void => void this.#values.set(key, value)
  removeItem = (key: string): void => void this.#values.delete(key)
}

test.each<[string, () => Store]>([
  ['memoryStore', memoryStore],
  ['webStore', () => webStore(new PageStorage())],
])('%s gets, sets, lists and clears by the beginning of a key', async (_, make) => {
  const store = make()
  for (const key of ['a/1', 'a/2', 'b/1', 'a']) await store.set(key, key)
  await store.set('a/1', 'new')
  expect([await store.get('a/1'), await store.get('none')]).toEqual(['new', null])
  expect((await store.keys('a/')).sort()).toEqual(['a/1', 'a/2'])
  await store.delete('a/1')
  await store.delete('a/1')
  await store.clear('a/')
  expect((await store.keys('')).sort()).toEqual(['a', 'b/1'])
})
