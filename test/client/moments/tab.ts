// The script of a page that follows the messages its user may read, and keeps what the client says. What it is to do stands in the page's
// address, so that a page which is loaded again does it again:
//   ?url=<service>&user=<subject>&seconds=<of the token>&transports=sse,long-poll&luck=<for every roll>&track=yes
import { createClient, type Status, type TransportName } from '../../../src/client/client.ts'

/** What was said, and when, in milliseconds since 1970. */
export type Said = { readonly at: number } & Pick<Status, 'name'> & {
    readonly transport?: TransportName
    readonly reason?: { readonly code: string }
    readonly retryAt?: number | null
  }

export interface Tab {
  /** Of this load of the page. */
  readonly life: string
  readonly said: Said[]
  /** Ids of the rows held. */
  rows: number[]
  /** How the live query is doing. */
  feed: string
  /** Ids of what was inserted, as the changes came. */
  readonly inserted: number[]
  /** When the last came. */
  insertedAt: number
  /** Codes of what was told to begin anew. */
  readonly resyncs: string[]
  readonly errors: string[]
  /** When each token was asked for. */
  readonly asked: number[]
  /** What the browser did to the page. */
  readonly moments: { readonly at: number; readonly name: string }[]
  /** Names of who is there, and how many came and went since. */
  here: string[]
  joined: number
  left: number
  readonly leftAt: number[]
  /** The server knows that this page is there. */
  isTracked: boolean
}

const settings = new URLSearchParams(location.search)
const tab: Tab = {
  life: crypto.randomUUID(),
  said: [],
  rows: [],
  feed: '',
  inserted: [],
  insertedAt: 0,
  resyncs: [],
  errors: [],
  asked: [],
  moments: [],
  here: [],
  joined: 0,
  left: 0,
  leftAt: [],
  isTracked: false,
}
Object.assign(globalThis, { tab })

if (settings.has('luck')) Math.random = () => Number(settings.get('luck'))
/** Shows how slow timers are. */
setInterval(() => Object.assign(globalThis, { tickedAt: Date.now() }), 50)

const note = ({ type }: Event): void => void tab.moments.push({ at: Date.now(), name: type })
document.addEventListener('freeze', note)
document.addEventListener('resume', note)
addEventListener('online', note)
addEventListener('pageshow', event => event.persisted && note(event))

const transports = settings.get('transports')?.split(',') as TransportName[] | undefined
const tide = createClient<{ messages: { id: number } }>(settings.get('url')!, {
  token: async () => {
    tab.asked.push(Date.now())
    return (await fetch(`/token${location.search}`)).text()
  },
  onError: error => tab.errors.push(String(error.stack ?? error)),
  ...(transports === undefined ? {} : { transports }),
})
tide.onStatus(status => tab.said.push({ at: Date.now(), ...status }))
const messages = tide.from('messages')
messages.live().subscribe(({ rows, status }) => {
  tab.rows = rows.map(({ id }) => id)
  tab.feed = status
})
messages.changes({ onResync: ({ code }) => tab.resyncs.push(code) }, ({ op, key }) => {
  if (op !== 'insert') return
  tab.inserted.push(Number(key?.id))
  tab.insertedAt = Date.now()
})
const room = tide.channel<Record<string, null>, { name: string }>('room:1')
if (settings.has('track'))
  room.presence.track({ name: settings.get('user')! }).then(() => {
    tab.isTracked = true
  })
else
  room.presence.subscribe(({ here, joined, left }) => {
    tab.here = here.map(({ meta }) => meta.name)
    tab.joined += joined.length
    tab.left += left.length
    if (left.length > 0) tab.leftAt.push(Date.now())
  })
