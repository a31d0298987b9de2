// One request after another, for where nothing streams. The server keeps nothing between two of them: each enters everything again,
// from where it stands. To the layer above it looks like one connection.
import type { ClientFrame, ErrorEvent, ServerFrame } from '../../protocol/messages.ts'
import { addressOf, broken, post, Refused, tell } from './http.ts'
import type { Loss, OpenTransport } from './transport.ts'

type Asked<T extends ClientFrame['type']> = Extract<ClientFrame, { type: T }>
/** What is a request of its own. */
type Errand = Asked<'send' | 'wait'>

interface Answer {
  readonly frames: readonly ServerFrame[]
  /** What the next poll brings back: the key to this connection's name, and a word for who was there. */
  readonly poll?: string
  readonly here?: string
}

/** What is asked within so many milliseconds ends the poll that waits once. */
const tickMs = 5
/** Beyond what a poll waits for, until it is taken for lost. */
const patienceMs = 15_000
/** What may wait to be sent: past it, a way that takes nothing is taken for lost. */
const maxErrands = 1000

export const openLongPoll: OpenTransport = ({ url, token, listener, entries }) => {
  const ending = new AbortController()
  const { signal } = ending
  /** By id, what was last told of it; '' before. What is not in it is not entered. */
  const told = new Map<number, string>()
  const tracks = new Map<number, Asked<'track' | 'untrack'>>()
  const errands: Errand[] = []
  /** Answers to what the next poll brings along. */
  let owed: ServerFrame[] = []
  let keys: { poll?: string | undefined; here?: string | undefined } = {}
  let heartbeatMs = 0
  /** Something was asked: the next poll is not to wait. */
  let isAsked = true
  let isRenewing = false
  let isOnErrand = false
  /** The poll that waits, and may be ended. */
  let waiting: AbortController | null = null
  let timer: ReturnType<typeof setTimeout> | undefined

  const lose = (loss: Loss): void => {
    if (signal.aborted) return
    end()
    listener.onLost(loss)
  }
  const fail = (failure: unknown): void => lose(failure instanceof Refused ? failure.loss : broken)
  const end = (): void => {
    clearTimeout(timer)
    ending.abort()
    waiting?.abort()
  }
  const ask = (answer?: ServerFrame): void => {
    if (answer !== undefined) owed.push(answer)
    isAsked = true
    timer ??= setTimeout(() => {
      timer = undefined
      waiting?.abort()
    }, tickMs)
  }
  const up = (frame: ServerFrame): void => {
    if (!signal.aborted) tell(listener, frame)
  }

  const take = (frame: ServerFrame): void => {
    switch (frame.type) {
      case 'welcome': {
        const isFirst = heartbeatMs === 0
        heartbeatMs = frame.heartbeatMs
        if (isFirst) up(frame)
        else if (isRenewing) up({ type: 'authenticated', expiresAt: frame.expiresAt })
        isRenewing = false
        return
      }
      case 'subscribed':
      case 'joined': {
        const { position, resumed, ...rest } = frame
        const text = JSON.stringify(rest)
        const isNews = told.has(frame.id) && !(resumed && told.get(frame.id) === text)
        if (isNews) told.set(frame.id, text)
        if (!isNews) return
        break
      }
      case 'error':
        if (frame.id !== undefined && frame.ref === undefined) forget(frame.id)
    }
    up(frame)
  }
  const forget = (id: number): boolean => {
    tracks.delete(id)
    return told.delete(id)
  }
  const entering = (): ClientFrame[] =>
    entries()
      .filter(frame => 'id' in frame && told.has(frame.id))
      .map(frame => (frame.type === 'join' ? tracked(frame) : frame))
  const tracked = ({ track, ...join }: Asked<'join'>): ClientFrame => {
    const said = tracks.get(join.id)
    if (said?.type === 'track') {
      const { meta, key } = said
      return { ...join, track: key === undefined ? { meta } : { meta, key } }
    }
    return said === undefined && track !== undefined ? { ...join, track } : join
  }

  const poll = async (): Promise<void> => {
    while (!signal.aborted) {
      clearTimeout(timer)
      timer = undefined
      const wait = isAsked ? 0 : heartbeatMs / 1000
      const one = new AbortController()
      waiting = isAsked ? null : one
      isAsked = false
      const answers = owed
      owed = []
      const answer = await post({
        address: addressOf(url, 'poll'),
        token,
        body: JSON.stringify({ frames: entering(), wait, ...keys }),
        signal: wait === 0 ? signal : one.signal,
        timeoutMs: wait * 1000 + patienceMs,
        read: response => response.json() as Promise<Answer>,
      }).catch(failure => {
        if (!one.signal.aborted) throw failure
      })
      waiting = null
      if (answer === undefined) continue
      keys = { poll: answer.poll, here: answer.here }
      answer.frames.forEach(take)
      // Of one that was refused together with its place, that has been said.
      for (const frame of answers) if (frame.type !== 'tracked' || told.has(frame.id)) up(frame)
    }
  }

  const run = async (errand: Errand): Promise<void> => {
    const { ref } = errand
    if (errand.type === 'wait') {
      const { position } = await request<{ position: string }>(addressOf(url, 'wait'), { txid: errand.txid })
      ask({ type: 'waited', ref, position } as ServerFrame)
      return
    }
    const { type, id, ref: _, ...send } = errand
    const join = entries().find(frame => frame.type === 'join' && frame.id === id) as Asked<'join'> | undefined
    if (join === undefined) throw new Refused(409, notJoined)
    const address = addressOf(url, `channels/${encodeURIComponent(join.topic)}`)
    if (join.private === false) address.search = 'private=false'
    const said = await request<{ message: string; position: string; duplicate?: true }>(address, send)
    if (ref !== undefined) up({ type: 'sent', id, ref, ...said })
  }
  const request = <T>(address: URL, body: unknown): Promise<T> =>
    post({ address, token, body: JSON.stringify(body), signal, read: response => response.json() as Promise<T> })
  const runAll = async (): Promise<void> => {
    isOnErrand = true
    for (let errand = errands.shift(); errand !== undefined && !signal.aborted; errand = errands.shift()) {
      const { ref = null } = errand
      await run(errand).catch(failure => {
        // A place that ends or a service that leaves is a loss; else it is this one alone that was refused.
        if (!(failure instanceof Refused) || failure.isOfAll) fail(failure)
        else up({ type: 'error', ...('id' in errand ? { id: errand.id } : {}), ref, ...failure.error! })
      })
    }
    isOnErrand = false
  }

  poll().catch(fail)
  return {
    name: 'long-poll',
    send(frame) {
      switch (frame.type) {
        case 'auth':
          token = frame.token
          isRenewing = true
          ask()
          break
        case 'subscribe':
        case 'join':
          told.set(frame.id, '')
          ask()
          break
        case 'unsubscribe':
          if (forget(frame.id)) ask({ type: 'unsubscribed', id: frame.id })
          break
        case 'track':
        case 'untrack':
          tracks.set(frame.id, frame)
          ask(frame.ref === undefined ? undefined : { type: 'tracked', id: frame.id, ref: frame.ref })
          break
        case 'send':
        case 'wait':
          if (errands.push(frame) > maxErrands) lose(broken)
          else if (!isOnErrand) runAll()
      }
    },
    close: end,
  }
}

const notJoined: ErrorEvent = { code: 'NOT_JOINED', message: 'this client is not in the channel', retry: false }
