// The application that the tests look at: components over every hook, and what they did, in `globalThis.app`.
import {
  createElement,
  memo,
  type ReactElement,
  StrictMode,
  startTransition,
  useEffect,
  useInsertionEffect,
  useLayoutEffect,
  useState,
} from 'react'
import { createRoot, hydrateRoot } from 'react-dom/client'
import type { LiveQuery, LiveUpdate } from '../../src/client/client.ts'
import { useChanges, useChannel, useLive, usePresence, useStatus } from '../../src/react/react.ts'
import { connectTo, Rendered, type Tide } from './rendered.ts'

/** What is on the page; a test changes it as a user would. */
export interface View {
  /** Lists of messages, by the room that each asks for; null asks for none. */
  lists?: (number | null)[]
  enabled?: boolean
  status?: boolean
  /** Follows the changes of messages, with a listener that says so. */
  changes?: string
  /** In the channel, with a listener that says so; and what it tells of itself. */
  channel?: string | null
  name?: string
  /** Many slow components that show the newest message of room 1; a number for each tree. */
  slow?: number
  scripted?: boolean
}

interface Settings {
  url: string
  token: string
  strict: boolean
}

const log = {
  /** Renders of each message, by its id. */
  renders: {} as Record<string, number>,
  /** What each commit of each list showed. */
  commits: [] as { list: number; asked: number | null; rooms: number[] }[],
  changes: [] as string[],
  heard: [] as string[],
  /** What the slow parts read while they rendered, and what each commit of them showed. */
  read: [] as string[],
  shown: [] as string[][],
  deltas: [] as { ids: number[]; delta: number | null }[],
  errors: [] as string[],
}
let tide: Tide

const Line = memo(({ row }: { row: { id: number; body: string } }) => {
  useLayoutEffect(() => {
    log.renders[row.id] = (log.renders[row.id] ?? 0) + 1
  })
  return createElement('li', {}, row.body)
})

function List({ list, asked, enabled }: { list: number; asked: number | null; enabled: boolean }): ReactElement {
  // Made anew in each render, as anybody would write it.
  const query = asked === null ? null : tide.from('messages').where('room_id', '=', asked).orderBy('id').live()
  const { rows, status, error } = useLive(query, { enabled })
  useLayoutEffect(() => {
    log.commits.push({ list, asked, rooms: [...new Set(rows.map(row => row.room_id))] })
  })
  return createElement(
    'ul',
    { 'data-list': list, 'data-status': status, 'data-error': error?.code },
    rows.map(row => createElement(Line, { key: row.id, row })),
  )
}

const Connected = (): ReactElement => createElement('output', { id: 'status' }, useStatus(tide).name)

function Changes({ says }: { says: string }): ReactElement {
  const { status } = useChanges(tide.from('messages'), change =>
    log.changes.push(`${says}: ${change.op} ${change.key?.id}`),
  )
  return createElement('output', { id: 'changes' }, status)
}

function Room({ says, name }: { says: string; name: string | undefined }): ReactElement {
  const channel = tide.channel('room:1')
  const { status, send } = useChannel(channel, {
    hello: ({ payload }) => log.heard.push(`${says}: ${payload}`),
  })
  const { here, count } = usePresence(channel, name === undefined ? undefined : { name })
  useEffect(() => {
    app.send = text => void send('hello', text)
  })
  const names = here.map(({ meta }) => (meta as { name: string } | null)?.name).sort()
  return createElement('output', { id: 'room', 'data-status': status, 'data-count': count }, names.join())
}

function Slow({ tree }: { tree: number }): ReactElement {
  useLayoutEffect(() => {
    const parts = [...document.querySelectorAll('#slow i')].map(part => part.textContent!)
    log.shown.push([...new Set(parts)])
  })
  const parts = Array.from({ length: 150 }, (_, part) => createElement(Part, { key: `${tree} ${part}` }))
  return createElement('div', { id: 'slow', 'data-tree': tree }, parts)
}

function Part(): ReactElement {
  const { rows } = useLive(tide.from('messages').where('room_id', '=', 1).orderBy('id').live())
  const body = rows.at(-1)?.body ?? ''
  log.read.push(body)
  const until = performance.now() + 8
  while (performance.now() < until);
  return createElement('i', {}, body)
}

const first: LiveUpdate<{ id: number }> = {
  rows: [],
  delta: null,
  status: 'live',
  stale: false,
  error: null,
  exact: true,
  warnings: [],
}
/** A query whose every step a test makes itself. */
const scripted = {
  current: first,
  listeners: new Set<(update: LiveUpdate<{ id: number }>) => void>(),
  insert(...ids: number[]) {
    const { rows } = this.current
    const changes = ids.map(id => ({ op: 'insert' as const, key: { id }, row: { id } }))
    const delta = { changes, committedAt: '2026-01-02T03:04:05.678901Z' }
    this.current = { ...first, rows: [...rows, ...ids.map(id => ({ id }))], delta }
    for (const listener of this.listeners) listener(this.current)
  },
}
const scriptedQuery = {
  key: 'scripted',
  client: scripted,
  get current() {
    return scripted.current
  },
  subscribe(listener: (update: LiveUpdate<{ id: number }>) => void) {
    scripted.listeners.add(listener)
    listener({ ...scripted.current, delta: null })
    return () => scripted.listeners.delete(listener)
  },
} as unknown as LiveQuery<{ id: number }>

function Scripted(): ReactElement {
  const { rows, delta } = useLive(scriptedQuery)
  useEffect(() => {
    log.deltas.push({ ids: rows.map(({ id }) => id), delta: delta?.changes.length ?? null })
  }, [rows, delta])
  return createElement('output', { id: 'scripted' }, rows.length)
}

function App(): ReactElement {
  const [view, setView] = useState<View>({})
  useInsertionEffect(() => {
    app.set = next => setView(before => ({ ...before, ...next }))
  }, [])
  const { lists = [], enabled = true } = view
  return createElement(
    'main',
    {},
    lists.map((asked, list) => createElement(List, { key: list, list, asked, enabled })),
    view.status && createElement(Connected),
    view.changes !== undefined && createElement(Changes, { says: view.changes }),
    view.channel != null && createElement(Room, { says: view.channel, name: view.name }),
    view.slow !== undefined && createElement(Slow, { tree: view.slow }),
    view.scripted && createElement(Scripted),
  )
}

const root = document.querySelector('#root')!
const ways = {
  log,
  scripted,
  set: (_view: View): void => {},
  send: (_text: string): void => {},
  startTransition,
  start({ url, token, strict }: Settings): void {
    tide = connectTo(url, token)
    const element = createElement(App)
    createRoot(root).render(strict ? createElement(StrictMode, {}, element) : element)
  },
  /** The page came rendered: takes it over. @param keep another root follows the same query already */
  hydrate({ url, token }: Settings): void {
    tide ??= connectTo(url, token)
    hydrateRoot(root, createElement(Rendered, { tide }), {
      onRecoverableError: error => log.errors.push(String(error)),
    })
  },
  /** Something beside the rendered root that follows the same query. */
  follow({ url, token }: Settings): void {
    tide = connectTo(url, token)
    const aside = document.body.appendChild(document.createElement('aside'))
    createRoot(aside).render(createElement(Rendered, { tide }))
  },
  logOut: () => tide.logout(),
  /** Somebody else, over a client of their own. */
  become({ url, token }: Settings): void {
    tide = connectTo(url, token)
    this.set({})
  },
}

declare global {
  var app: typeof ways
}
globalThis.app = ways
