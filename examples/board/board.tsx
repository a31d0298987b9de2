// The page of the board: tables by live queries, who is looking by presence, where they point by broadcast.
import {
  type DragEvent,
  type KeyboardEvent,
  type PointerEvent,
  type ReactNode,
  useEffect,
  useRef,
  useState,
} from 'react'
import { createRoot } from 'react-dom/client'
import { createClient } from 'tidegate/client'
import { useChannel, useLive, usePresence, useStatus } from 'tidegate/react'
import { between, type Card, type Database, type Place, placeBeside, shownCards } from './cards.ts'

interface Session {
  person: { id: string; name: string }
  people: { id: string; name: string }[]
  url: string
  token: string
}

const boardId = 1
const who = new URLSearchParams(location.search).get('as') ?? 'Ada'
const askSession = async (): Promise<Session> => (await fetch(`/session?as=${encodeURIComponent(who)}`)).json()
const session = await askSession()
const tide = createClient<Database>(session.url, { token: async () => (await askSession()).token })
const channel = tide.channel<{ cursor: Pointing }, { name: string }>(`board:${boardId}`)

/** What the pages of a board tell each other while the pointer moves. */
type Pointing = {
  name: string
  /** Share of the board's width and height. */
  x: number
  y: number
}

const colours = ['light-dark(#0e7490, #4cc5de)', 'light-dark(#b4531a, #f0a36b)', 'light-dark(#7c3aed, #b79cf5)']
const colourOf = (user: string): string =>
  colours[session.people.findIndex(({ id }) => id === user) % colours.length] ?? colours[0]!

/** Has the server write, as this user. @returns the transaction */
async function write(name: string, ...values: unknown[]): Promise<string> {
  const { token } = await askSession()
  const response = await fetch('/write', {
    method: 'POST',
    headers: { authorization: `Bearer ${token}` },
    body: JSON.stringify({ name, values }),
  })
  const answer = await response.json()
  if (!response.ok) throw new Error(answer.message)
  return answer.txid
}

function App() {
  const status = useStatus(tide)
  const { rows, status: asked } = useLive(tide.from('boards').where('id', '=', boardId).live())
  const board = rows[0]
  return (
    <main>
      <header>
        <h1>{board?.name ?? 'Board'}</h1>
        <div className="status" role="status" data-status={status.name}>
          {status.name === 'degraded' ? `live, over ${status.transport}` : status.name}
        </div>
        {board && <Looking />}
      </header>
      {board && <Board />}
      {!board && asked === 'live' && (
        <p className="none">
          {session.person.name}, you are not on this board. As soon as somebody takes you in, it is here.
        </p>
      )}
    </main>
  )
}

/** Who looks at the board now: each person once, however many windows they have. */
function Looking() {
  const { here } = usePresence(channel, { name: session.person.name })
  const people = new Map(here.map(({ user, meta }) => [user ?? '', meta.name]))
  return (
    <ul className="looking" aria-label="Looking at the board">
      {[...people].map(([user, name]) => (
        <li key={user} className="face" style={{ '--who': colourOf(user) }} title={name}>
          <span aria-hidden="true">{name[0]}</span>
          <span className="hidden">{name}</span>
        </li>
      ))}
    </ul>
  )
}

function Board() {
  const columns = useLive(tide.from('columns').where('board_id', '=', boardId).orderBy('position').live()).rows
  const cards = useLive(tide.from('cards').where('board_id', '=', boardId).orderBy('position').live()).rows
  /** Where cards were put here, until the database says the same. */
  const [moving, setMoving] = useState<ReadonlyMap<number, Place>>(new Map())
  const [problem, setProblem] = useState('')
  const [said, say] = useState('')
  const moved = useRef<number | null>(null)
  const shown = shownCards(cards, moving)

  // A card that changes its column is made anew there: the keyboard stays with it.
  useEffect(() => {
    if (moved.current !== null) document.querySelector<HTMLElement>(`[data-card="${moved.current}"]`)?.focus()
    moved.current = null
  })

  async function attempt(work: () => Promise<unknown>) {
    setProblem('')
    await work().catch((error: Error) => setProblem(error.message))
  }

  const move = (card: Card, place: Place) =>
    attempt(async () => {
      setMoving(before => new Map(before).set(card.id, place))
      say(`${card.title}: now in ${columns.find(({ id }) => id === place.column_id)?.title}`)
      try {
        // From here on the rows say it themselves, also where somebody else was quicker.
        await tide.waitFor(await write('move', card.id, place.column_id, place.position))
      } finally {
        setMoving(before => new Map([...before].filter(([id, at]) => id !== card.id || at !== place)))
      }
    })

  return (
    <>
      <Cursors>
        <div className="columns">
          {columns.map((column, at) => {
            const own = shown.filter(card => card.column_id === column.id)
            const beside = (step: number) => columns[at + step]?.id
            return (
              <section key={column.id} className="column" aria-label={column.title}>
                <header>
                  <h2>{column.title}</h2>
                  <span>{own.length}</span>
                </header>
                <Cards
                  cards={own}
                  moving={moving}
                  onDrop={(id, before) => {
                    const card = shown.find(each => each.id === id)
                    if (card !== undefined) move(card, { column_id: column.id, position: between(own, card, before) })
                  }}
                  onKey={(card, key) => {
                    const place = placeBeside(shown, card, key, beside)
                    if (place === null) return
                    moved.current = card.id
                    move(card, place)
                  }}
                  onRemove={card => attempt(() => write('remove', card.id))}
                />
                <Add
                  label={`New card in ${column.title}`}
                  onAdd={title => attempt(() => write('add', boardId, column.id, title, between(own, null, null)))}
                />
              </section>
            )
          })}
        </div>
      </Cursors>
      <footer>
        <Members attempt={attempt} />
        <p>Drag a card, or tab to it: the arrow keys move it, Delete removes it.</p>
      </footer>
      <div className="hidden" aria-live="polite">
        {said}
      </div>
      {problem && (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
    </>
  )
}

interface CardsProps {
  cards: readonly Card[]
  moving: ReadonlyMap<number, Place>
  /** @param before the card that it was dropped on the upper edge of; null: at the end */
  onDrop: (id: number, before: Card | null) => void
  onKey: (card: Card, key: string) => void
  onRemove: (card: Card) => void
}

function Cards({ cards, moving, onDrop, onKey, onRemove }: CardsProps) {
  /** Undefined: nothing is held over this column. */
  const [target, setTarget] = useState<Card | null | undefined>()

  function over(event: DragEvent<HTMLElement>) {
    event.preventDefault()
    const items = [...event.currentTarget.querySelectorAll('[data-card]')]
    const at = items.findIndex(item => event.clientY < item.getBoundingClientRect().top + item.clientHeight / 2)
    setTarget(cards[at] ?? null)
  }

  return (
    <ul
      className={target === null ? 'cards end' : 'cards'}
      onDragOver={over}
      onDragLeave={() => setTarget(undefined)}
      onDrop={event => {
        event.preventDefault()
        setTarget(undefined)
        onDrop(Number(event.dataTransfer.getData('text/plain')), target ?? null)
      }}
    >
      {cards.map(card => (
        <CardItem
          key={card.id}
          card={card}
          isMoving={moving.has(card.id)}
          isTarget={target?.id === card.id}
          onKey={onKey}
          onRemove={onRemove}
        />
      ))}
    </ul>
  )
}

interface CardItemProps {
  card: Card
  isMoving: boolean
  isTarget: boolean
  onKey: (card: Card, key: string) => void
  onRemove: (card: Card) => void
}

function CardItem({ card, isMoving, isTarget, onKey, onRemove }: CardItemProps) {
  const [isDragged, setDragged] = useState(false)
  const names = ['card', isMoving && 'moving', isTarget && 'before', isDragged && 'dragged']

  function press(event: KeyboardEvent) {
    if (event.target !== event.currentTarget) return
    if (event.key === 'Delete') onRemove(card)
    else if (event.key.startsWith('Arrow')) {
      event.preventDefault()
      onKey(card, event.key)
    }
  }

  return (
    <li
      className={names.filter(Boolean).join(' ')}
      data-card={card.id}
      draggable
      // biome-ignore lint/a11y/noNoninteractiveTabindex: the keyboard moves it.
      tabIndex={0}
      aria-keyshortcuts="ArrowLeft ArrowRight ArrowUp ArrowDown Delete"
      onKeyDown={press}
      onDragStart={event => {
        setDragged(true)
        event.dataTransfer.setData('text/plain', String(card.id))
      }}
      onDragEnd={() => setDragged(false)}
    >
      <span>{card.title}</span>
      <div className="tools">
        <button
          type="button"
          tabIndex={-1}
          aria-label={`${card.title}: to the left`}
          onClick={() => onKey(card, 'ArrowLeft')}
        >
          ‹
        </button>
        <button
          type="button"
          tabIndex={-1}
          aria-label={`${card.title}: to the right`}
          onClick={() => onKey(card, 'ArrowRight')}
        >
          ›
        </button>
        <button type="button" tabIndex={-1} aria-label={`${card.title}: remove`} onClick={() => onRemove(card)}>
          ×
        </button>
      </div>
    </li>
  )
}

function Add({ label, onAdd }: { label: string; onAdd: (title: string) => void }) {
  const [title, setTitle] = useState('')
  return (
    <form
      className="add"
      onSubmit={event => {
        event.preventDefault()
        if (title.trim() !== '') onAdd(title.trim())
        setTitle('')
      }}
    >
      <input
        aria-label={label}
        placeholder="+ New card"
        value={title}
        maxLength={200}
        onChange={event => setTitle(event.target.value)}
      />
    </form>
  )
}

function Members({ attempt }: { attempt: (work: () => Promise<unknown>) => void }) {
  const members = useLive(tide.from('members').where('board_id', '=', boardId).orderBy('name').live()).rows
  const others = session.people.filter(({ id }) => !members.some(member => member.user_id === id))
  return (
    <ul className="members" aria-label="Members">
      {members.map(({ user_id, name }) => (
        <li key={user_id} className={user_id === session.person.id ? 'you' : ''}>
          {user_id === session.person.id ? `${name} (you)` : name}
          {user_id !== session.person.id && (
            <button type="button" onClick={() => attempt(() => write('dismiss', boardId, user_id))}>
              Take {name} off
            </button>
          )}
        </li>
      ))}
      {others.map(({ id, name }) => (
        <button key={id} type="button" onClick={() => attempt(() => write('invite', boardId, id, name))}>
          Take {name} in
        </button>
      ))}
    </ul>
  )
}

const pointEveryMs = 60

/** Shows where the others point, and tells them where we do. */
function Cursors({ children }: { children: ReactNode }) {
  const [cursors, setCursors] = useState<ReadonlyMap<string, Pointing & { user: string }>>(new Map())
  const pointedAt = useRef(0)
  const { sendNow } = useChannel(channel, {
    cursor({ payload, sender }) {
      if (sender?.connection == null || sender.user === null) return
      const { connection, user } = sender
      setCursors(before => new Map(before).set(connection, { ...payload, user }))
    },
  })
  const { here } = usePresence(channel)
  const present = new Set(here.map(({ connection }) => connection))

  function point(event: PointerEvent<HTMLElement>) {
    const now = performance.now()
    if (now - pointedAt.current < pointEveryMs) return
    pointedAt.current = now
    const board = event.currentTarget.getBoundingClientRect()
    const x = (event.clientX - board.left) / board.width
    const y = (event.clientY - board.top) / board.height
    sendNow('cursor', { name: session.person.name, x, y })
  }

  return (
    <div style={{ position: 'relative' }} onPointerMove={point}>
      {children}
      {[...cursors].map(
        ([connection, { user, name, x, y }]) =>
          present.has(connection) && (
            <div
              key={connection}
              className="cursor"
              aria-hidden="true"
              style={{ '--who': colourOf(user), left: `${x * 100}%`, top: `${y * 100}%` }}
            >
              <svg viewBox="0 0 16 16" aria-hidden="true">
                <path d="M1 1l5.5 14 2-6 6-2z" fill="currentColor" />
              </svg>
              <b>{name}</b>
            </div>
          ),
      )}
    </div>
  )
}

declare module 'react' {
  interface CSSProperties {
    '--who'?: string
  }
}

createRoot(document.querySelector('#root')!).render(<App />)
