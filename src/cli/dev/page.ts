// The page of `tidegate dev`: two people side by side, each with a client of their own, and what each may read.
import { type Client, createClient, type FeedStatus } from '../../client/client.ts'

interface Example {
  people: { id: string; name: string }[]
  rooms: { id: number; name: string }[]
  commands: [purpose: string, command: string][]
}

interface Room {
  id: number
  name: string
}
interface Member {
  room_id: number
  user_id: string
}
interface Message {
  id: number
  room_id: number
  author: string
  body: string
  created_at: string
}
interface Database {
  rooms: Room
  members: Member
  messages: Message
}

const goneAfterMs = 250

function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  made.append(...children)
  return made
}

const byId = (id: string): HTMLElement => document.getElementById(id)!

/** The children of a list, by key: what comes slides in, what goes fades out, what stays is not touched. */
class KeyedList<Item> {
  readonly #parent: HTMLElement
  readonly #make: (item: Item) => HTMLElement
  readonly #update: (made: HTMLElement, item: Item) => void
  readonly #held = new Map<string, HTMLElement>()

  constructor(parent: HTMLElement, make: (item: Item) => HTMLElement, update: (made: HTMLElement, item: Item) => void) {
    this.#parent = parent
    this.#make = make
    this.#update = update
  }

  /** @param isNews false for what was there already when we came to look */
  show(items: readonly (readonly [key: string, item: Item])[], isNews: boolean): void {
    const wanted = new Set(items.map(([key]) => key))
    for (const [key, held] of this.#held) {
      if (wanted.has(key)) continue
      this.#held.delete(key)
      held.classList.add('leaving')
      // Fading is for the eye: for everything else it is gone now.
      held.setAttribute('aria-hidden', 'true')
      setTimeout(() => held.remove(), goneAfterMs)
    }
    for (const [key, item] of items) {
      let made = this.#held.get(key)
      if (made === undefined) {
        made = this.#make(item)
        this.#held.set(key, made)
        this.#parent.append(made)
        if (isNews) arrive(made)
        this.#parent.scrollTop = this.#parent.scrollHeight
      }
      this.#update(made, item)
    }
  }
}

function arrive(made: HTMLElement): void {
  made.classList.add('arriving', 'fresh')
  requestAnimationFrame(() => requestAnimationFrame(() => made.classList.remove('arriving')))
  setTimeout(() => made.classList.remove('fresh'), 1200)
}

async function act(action: Record<string, unknown>): Promise<void> {
  const problem = byId('problem')
  try {
    const response = await fetch('/dev/actions', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(action),
    })
    if (!response.ok) throw new Error(((await response.json()) as { message: string }).message)
    problem.hidden = true
  } catch (error) {
    problem.textContent = `That did not work: ${error instanceof Error ? error.message : String(error)}`
    problem.hidden = false
  }
}

async function tokenOf(person: string): Promise<string> {
  const response = await fetch(`/dev/token?person=${encodeURIComponent(person)}`)
  if (!response.ok) throw new Error(`no token: ${response.status}`)
  return ((await response.json()) as { token: string }).token
}

/** What one person sees. Everything shown comes from that person's own subscriptions. */
class PersonPanel {
  readonly #example: Example
  readonly #person: Example['people'][number]
  readonly #status: HTMLElement
  readonly #none: HTMLElement
  readonly #roomList: KeyedList<Room>
  readonly #messageLists = new Map<number, KeyedList<Message>>()
  readonly #choice: HTMLSelectElement
  readonly #body: HTMLInputElement
  readonly #send: HTMLButtonElement
  /** Which of the two queries have shown their first rows. */
  readonly #live = new Set<string>()
  #isSettled = false
  #rooms: readonly Room[] = []
  #messages: readonly Message[] = []

  constructor(example: Example, index: number) {
    this.#example = example
    this.#person = example.people[index]!
    const { name } = this.#person
    this.#status = element('span', { class: 'status', role: 'status' }, 'connecting')
    this.#none = element('p', { class: 'none' }, `${name} is in no room, and sees nothing.`)
    this.#none.hidden = true
    const rooms = element('div', { class: 'rooms' }, this.#none)
    this.#choice = element('select', { 'aria-label': `Room for ${name}'s message` })
    this.#body = element('input', {
      type: 'text',
      maxlength: '500',
      required: '',
      placeholder: `Write as ${name}`,
      'aria-label': `Message from ${name}`,
    })
    this.#send = element('button', { type: 'submit' }, 'Send')
    const form = element('form', { class: 'post' }, this.#choice, this.#body, this.#send)
    form.addEventListener('submit', event => {
      event.preventDefault()
      const body = this.#body.value.trim()
      if (body === '') return
      this.#body.value = ''
      void act({ do: 'post', person: this.#person.id, room: Number(this.#choice.value), body })
    })
    const face = element('span', { class: 'face', 'aria-hidden': 'true' }, name.slice(0, 1))
    const title = element('h2', { id: `person-${index}` }, name)
    const panel = element(
      'section',
      { class: 'card person', 'data-index': String(index), 'data-person': name, 'aria-labelledby': `person-${index}` },
      element('header', {}, face, title, this.#status),
      rooms,
      form,
    )
    byId('people').append(panel)
    this.#roomList = new KeyedList<Room>(
      rooms,
      room => this.#makeRoom(room),
      (made, room) => {
        made.querySelector('h3')!.textContent = room.name
        made.style.order = String(room.id)
      },
    )
  }

  follow(client: Client<Database>): void {
    client
      .from('rooms')
      .live()
      .subscribe(({ rows, status }) => {
        if (status === 'live') this.#live.add('rooms')
        this.#rooms = [...rows].sort((a, b) => a.id - b.id)
        this.#render()
      })
    client
      .from('messages')
      .live()
      .subscribe(({ rows, status, stale, error }) => {
        if (status === 'live') this.#live.add('messages')
        this.#messages = [...rows].sort((a, b) => a.id - b.id)
        this.#showStatus(status, stale, error?.message)
        this.#render()
      })
  }

  #makeRoom(room: Room): HTMLElement {
    const list = element('ul', { class: 'messages', tabindex: '0', 'aria-label': `Messages in ${room.name}` })
    const messages = new KeyedList<Message>(
      list,
      message => this.#makeMessage(message),
      (made, message) => {
        made.querySelector('.body')!.textContent = message.body
      },
    )
    this.#messageLists.set(room.id, messages)
    return element('article', { class: 'room', 'data-room': room.name }, element('h3', {}, room.name), list)
  }

  #makeMessage(message: Message): HTMLElement {
    const author = this.#example.people.findIndex(person => person.id === message.author)
    const name = this.#example.people[author]?.name ?? message.author.slice(0, 8)
    const at = new Date(message.created_at)
    const time = element('time', { datetime: at.toISOString() }, at.toLocaleTimeString([], { timeStyle: 'short' }))
    const body = element('span', { class: 'body' }, message.body)
    return element('li', { class: 'message', 'data-author': String(author) }, element('b', {}, name), body, time)
  }

  #render(): void {
    const shown = new Set(this.#messageLists.keys())
    this.#roomList.show(
      this.#rooms.map(room => [String(room.id), room]),
      this.#isSettled,
    )
    for (const [id, messages] of this.#messageLists) {
      const inRoom = this.#messages.filter(message => message.room_id === id)
      // The messages that are there when a room comes into sight come with it, not one by one.
      const isNews = this.#isSettled && shown.has(id)
      messages.show(
        inRoom.map(message => [String(message.id), message]),
        isNews,
      )
      if (!this.#rooms.some(room => room.id === id)) this.#messageLists.delete(id)
    }
    this.#isSettled ||= this.#live.size === 2
    this.#none.hidden = this.#rooms.length > 0 || this.#status.dataset.status !== 'live'
    this.#showChoice()
  }

  #showChoice(): void {
    const chosen = this.#choice.value
    const names = this.#rooms.map(room => element('option', { value: String(room.id) }, room.name))
    this.#choice.replaceChildren(...names)
    if (this.#rooms.some(room => String(room.id) === chosen)) this.#choice.value = chosen
    for (const control of [this.#choice, this.#body, this.#send]) control.disabled = this.#rooms.length === 0
  }

  #showStatus(status: FeedStatus, stale: boolean, reason: string | undefined): void {
    const text = status === 'live' && stale ? 'database stalled' : status
    // Told again only when it changed: a screen reader would read it out at every message.
    if (this.#status.textContent !== text) this.#status.textContent = text
    this.#status.dataset.status = status
    this.#status.title = reason ?? ''
  }
}

/** The switches: shown from what each person's own `members` rows say, so they move when psql does it too. */
function followMemberships(example: Example, clients: readonly Client<Database>[]): void {
  const switches = new Map<string, HTMLInputElement>()
  const head = element('tr', {}, element('th', { scope: 'col' }, element('span', { class: 'hidden' }, 'Room')))
  for (const person of example.people) head.append(element('th', { scope: 'col' }, person.name))
  const body = element('tbody')
  for (const room of example.rooms) {
    const row = element('tr', {}, element('th', { scope: 'row' }, room.name))
    for (const person of example.people) {
      const label = `${person.name} is in ${room.name}`
      const box = element('input', { type: 'checkbox', role: 'switch', class: 'switch', 'aria-label': label })
      box.addEventListener('change', () => {
        void act({ do: box.checked ? 'join' : 'leave', person: person.id, room: room.id })
      })
      switches.set(`${room.id} ${person.id}`, box)
      row.append(element('td', {}, box))
    }
    body.append(row)
  }
  byId('memberships').append(element('thead', {}, head), body)
  clients.forEach((client, index) => {
    const person = example.people[index]!
    client
      .from('members')
      .live()
      .subscribe(({ rows, status }) => {
        if (status !== 'live') return
        for (const room of example.rooms)
          switches.get(`${room.id} ${person.id}`)!.checked = rows.some(row => row.room_id === room.id)
      })
  })
}

function showCommands(example: Example): void {
  for (const [purpose, command] of example.commands) {
    const copy = element('button', { type: 'button', 'aria-label': `Copy: ${purpose}` }, 'Copy')
    copy.addEventListener('click', async () => {
      await navigator.clipboard.writeText(command)
      copy.textContent = 'Copied'
      setTimeout(() => {
        copy.textContent = 'Copy'
      }, 1500)
    })
    byId('commands').append(
      element('dt', {}, purpose),
      element('dd', {}, element('code', { tabindex: '0' }, command), copy),
    )
  }
  byId('commands').parentElement!.hidden = example.commands.length === 0
}

const example = (await (await fetch('/dev/example')).json()) as Example
const clients = example.people.map(person =>
  createClient<Database>(location.origin, { token: () => tokenOf(person.id) }),
)
example.people.forEach((_, index) => {
  new PersonPanel(example, index).follow(clients[index]!)
})
followMemberships(example, clients)
showCommands(example)
