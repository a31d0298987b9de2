// Random histories of a client and its server: commits, cuts, parts, resyncs, refusals, lost windows. A model of the server holds the
// truth; the client has to end with it, whatever came in between, and to say nothing untrue on the way.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createClient, type Status } from '../../src/client/client.ts'
import type { ClientFrame, JsonRow, RowChange } from '../../src/protocol/messages.ts'
import { eventually } from '../support/eventually.ts'
import { at, type Peer, ScriptedServer } from './scripted-server.ts'

type Step =
  | { readonly do: 'commit'; readonly id: number; readonly op: 'upsert' | 'delete' }
  | { readonly do: 'cut' }
  | { readonly do: 'close'; readonly code: number }
  | { readonly do: 'heartbeat' }
  /** The window is forgotten: who comes back later is told to resync. */
  | { readonly do: 'forget' }
  | { readonly do: 'resync' }
  /** The next frames wait until something else happens. */
  | { readonly do: 'breathe' }

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    arbitrary: fc.record({
      do: fc.constant('commit' as const),
      id: fc.nat(6),
      op: fc.constantFrom('upsert' as const, 'delete' as const),
    }),
    weight: 8,
  },
  { arbitrary: fc.constant<Step>({ do: 'cut' }), weight: 2 },
  { arbitrary: fc.constantFrom(4000, 4001, 1001).map(code => ({ do: 'close' as const, code })), weight: 1 },
  { arbitrary: fc.constant<Step>({ do: 'heartbeat' }), weight: 2 },
  { arbitrary: fc.constant<Step>({ do: 'forget' }), weight: 1 },
  { arbitrary: fc.constant<Step>({ do: 'resync' }), weight: 1 },
  { arbitrary: fc.constant<Step>({ do: 'breathe' }), weight: 4 },
)

type Kind = 'live' | 'changes'
const numberOf = { live: 1, changes: 2 } as const

interface Commit {
  readonly lsn: number
  readonly change: RowChange & { op: 'insert' | 'update' | 'delete' }
}

/** One query, `messages`, followed both as rows and as changes. */
class Model {
  readonly rows = new Map<number, JsonRow>()
  readonly commits: Commit[] = []
  lsn = 1
  /** Positions before it are past the window. */
  oldest = 1
  /** After each commit, the first before any. */
  readonly states: string[] = [stateOf([])]
  #value = 0

  commit(id: number, op: 'upsert' | 'delete'): Commit | null {
    const held = this.rows.get(id)
    if (op === 'delete' && held === undefined) return null
    const row = { id, value: ++this.#value }
    const change: Commit['change'] =
      op === 'delete'
        ? { op, key: { id } }
        : held === undefined
          ? { op: 'insert', key: { id }, row }
          : { op: 'update', key: { id }, set: { value: row.value } }
    if (op === 'delete') this.rows.delete(id)
    else this.rows.set(id, row)
    const commit = { lsn: ++this.lsn, change }
    this.commits.push(commit)
    this.states.push(stateOf([...this.rows.values()]))
    return commit
  }
}

const stateOf = (rows: readonly JsonRow[]): string =>
  JSON.stringify(rows.map(({ id, value }) => [id, value]).sort(([a], [b]) => Number(a) - Number(b)))

/** What the server does for one connection. */
class Answering {
  readonly #peer: Peer
  readonly #model: Model
  readonly #ids = new Map<Kind, number>()
  isOpen = true

  constructor(peer: Peer, model: Model) {
    this.#peer = peer
    this.#model = model
    void this.#answer()
  }

  /** Both have been entered. What was sent before a cut may arrive after it. */
  get hasAll(): boolean {
    return this.#ids.size === 2
  }

  tell(commit: Commit): void {
    for (const kind of this.#ids.keys()) this.#tell(commit, kind)
  }

  heartbeat(): void {
    const positions = Object.fromEntries([...this.#ids.values()].map(id => [id, `${at(this.#model.lsn)}.tag`]))
    this.#peer.send({ type: 'heartbeat', position: null, positions, stale: false, lagMs: 0 })
  }

  resync(): void {
    for (const [kind, id] of this.#ids) {
      this.#peer.send({ type: 'resync', id, code: 'INPUTS_CHANGED', reason: 'memberships changed' })
      if (kind === 'live') this.#snapshot(id)
    }
  }

  end(code: number | null): void {
    this.isOpen = false
    if (code === null) this.#peer.cut()
    else this.#peer.close(code)
  }

  async #answer(): Promise<void> {
    await this.#peer.welcome()
    while (this.isOpen) this.#enter(await this.#peer.next('subscribe'))
  }

  #enter({ id, kind, since }: Extract<ClientFrame, { type: 'subscribe' }>): void {
    if (!this.isOpen) return
    const { lsn, oldest, commits } = this.#model
    const from = since === undefined ? null : Number.parseInt(since.split('.')[0]!.split('-')[1]!, 16)
    const resumed = from !== null && from >= oldest
    const subscribed = {
      id,
      query: numberOf[kind],
      tag: 'tag',
      key: ['id'],
      resumed,
      position: at(resumed ? from : lsn),
    }
    this.#peer.send({ type: 'subscribed', ...subscribed })
    if (from !== null && !resumed) {
      this.#peer.send({ type: 'resync', id, code: 'WINDOW_PASSED', reason: 'away for too long' })
    }
    if (resumed) for (const commit of commits) if (commit.lsn > from) this.#tell(commit, kind)
    this.#ids.set(kind, id)
    if (resumed) this.heartbeat()
    else if (kind === 'live') this.#snapshot(id)
  }

  #tell({ lsn, change }: Commit, kind: Kind): void {
    if (kind === 'live') {
      this.#peer.delta(lsn, [change], numberOf.live)
      return
    }
    // The commit's time names it to the test.
    const { op, key } = change
    const event = { op, key, schema: 'public', table: 'messages', committedAt: String(lsn) }
    this.#peer.send({ type: 'change', query: numberOf.changes, position: at(lsn), ...event })
  }

  /** In two parts, so that a cut may fall between them. */
  #snapshot(id: number): void {
    const rows = [...this.#model.rows.values()]
    const half = Math.ceil(rows.length / 2)
    this.#peer.send({ type: 'snapshot', id, rows: rows.slice(0, half), done: false })
    this.#peer.send({ type: 'snapshot', id, rows: rows.slice(half), done: true, position: at(this.#model.lsn) })
  }
}

async function play(steps: readonly Step[]): Promise<void> {
  await using server = await ScriptedServer.start()
  const model = new Model()
  const connections: Answering[] = []
  let isOver = false
  void (async () => {
    while (!isOver) connections.push(new Answering(await server.peer(), model))
  })()
  const current = (): Answering | undefined => connections.at(-1)

  const errors: Error[] = []
  const client = createClient<{ messages: { id: number; value: number } }>(server.url, {
    token: 't',
    transports: ['websocket'],
    onError: error => errors.push(error),
  })
  const lies: string[] = []
  client.onStatus(({ name }: Status) => {
    if (name === 'live' && !connections.slice(-2).some(({ hasAll }) => hasAll))
      lies.push('live, though nobody serves it')
  })
  const messages = client.from('messages')
  let shownAt = 0
  messages.live().subscribe(({ status, rows }) => {
    if (status !== 'live' && status !== 'offline') return
    const index = model.states.indexOf(stateOf(rows as unknown as JsonRow[]), shownAt)
    if (index === -1) lies.push(`${status} with rows of no commit, or of one before those shown last`)
    else shownAt = index
  })
  const heard: (number | 'resync')[] = []
  messages.changes({ onResync: () => heard.push('resync') }, ({ committedAt }) => heard.push(Number(committedAt)))

  await eventually(() => expect(client.status.name).toBe('live'))
  for (const each of steps) {
    switch (each.do) {
      case 'commit': {
        const commit = model.commit(each.id, each.op)
        if (commit !== null && current()?.isOpen) current()!.tell(commit)
        break
      }
      case 'cut':
        current()?.end(null)
        break
      case 'close':
        current()?.end(each.code)
        break
      case 'heartbeat':
        if (current()?.isOpen) current()!.heartbeat()
        break
      case 'forget':
        model.oldest = model.lsn
        break
      case 'resync':
        if (current()?.isOpen) current()!.resync()
        break
      case 'breathe':
        await new Promise(resolve => setTimeout(resolve, 2))
    }
  }
  const last = model.commit(7, 'upsert')!
  if (current()?.isOpen) current()!.tell(last)
  await eventually(() => {
    expect(client.status.name).toBe('live')
    expect(model.states.length - 1).toBe(shownAt)
  })
  isOver = true
  client.close()
  expect(lies).toEqual([])
  expect(errors).toEqual([])
  // Each change once and in order; between two of them none is missing, but where a resync said so.
  const order = model.commits.map(({ lsn }) => lsn)
  let expected = 0
  let mayMiss = true
  for (const each of heard) {
    if (each === 'resync') {
      mayMiss = true
      continue
    }
    const index = order.indexOf(each)
    if (mayMiss) expect(index).toBeGreaterThanOrEqual(expected)
    else expect(index).toBe(expected)
    expected = index + 1
    mayMiss = false
  }
}

test('[P1] [P4] whatever happens to its connection, the client ends with the truth, repeats no change, misses none unsaid, and tells no lie', {
  timeout: 240_000,
}, async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 40 }), play), {
    numRuns: 40,
    ...(process.env.SEED === undefined ? {} : { seed: Number(process.env.SEED) }),
  })
})
