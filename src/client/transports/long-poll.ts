// One request after another, for where nothing streams. The server keeps nothing between two of them: each enters everything again,
// from where it stands. To the layer above it looks like one connection.
import type { ClientFrame, ErrorEvent, ServerFrame } from '../../protocol/messages.ts'
import { lossOf, post, Refused } from './http.ts'
import type { Loss, OpenTransport } from './transport.ts'
import { addressOf, broken, errorOfAll, tell } from './wire.ts'

type Asked<T extends ClientFrame['type']> = Extract<ClientFrame, { type: T }>

interface Answer {
  readonly frames: readonly ServerFrame[]
  /** What the next poll brings back: the key to this connection's name, and a word for who was there. */
  readonly poll: string
  readonly here?: string
}

/** What is asked within so many milliseconds ends the poll that waits once. */
const tickMs = 5
/** The longest that a poll waits: proxies cut what is silent for thirty seconds. */
const maxWaitMs = 25_000
/** Beyond what a poll waits for, until it is taken for lost. */
const patienceMs = 15_000
/** A poll that was to wait, and was answered sooner with nothing, is followed by the next so much later: whoever answers so may do it for ever. */
const tooSoonMs = 100
const pauseMs = 1000
/** Messages that may wait to be sent: past it, a way that takes nothing is taken for lost. */
const maxQueued = 1000

export const openLongPoll: OpenTransport = ({ url, token, listener, entries }) => {
  const ending = new AbortController()
  const { signal } = ending
  /** By id, what was last told of it; '' before. What is not in it is not entered. */
  const told = new Map<number, string>()
  const tracks = new Map<number, Asked<'track' | 'untrack'>>()
  /** By ref. Each poll brings them along until they are answered; the client above bounds them. */
  const waits = new Map<number, Asked<'wait'>>()
  const queue: Asked<'send'>[] = []
  /** Answers to what the next poll brings along. */
  let owed: ServerFrame[] = []
  let brought: Partial<Omit<Answer, 'frames'>> = {}
  let heartbeatMs = 0
  /** Something was asked: the next poll is not to wait. */
  let isAsked = true
  let isRenewing = false
  let isSending = false
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
  const pollAnew = (): void => {
    timer ??= setTimeout(() => waiting?.abort(), tickMs)
  }
  const ask = (answer?: ServerFrame): void => {
    if (answer !== undefined) owed.push(answer)
    isAsked = true
    pollAnew()
  }
  const up = (frame: ServerFrame): void => {
    if (!signal.aborted) tell(listener, frame)
  }

  /** @param ids by the number that the server gave to a query or channel for this answer: above they are called by their ids
   *  @param isRenewal the first poll with another token */
  const take = (frame: ServerFrame, ids: Map<string, number>, isRenewal: boolean): void => {
    switch (frame.type) {
      case 'welcome': {
        const isFirst = heartbeatMs === 0
        heartbeatMs = Math.min(frame.heartbeatMs, maxWaitMs)
        if (isFirst) up({ ...frame, heartbeatMs })
        else if (isRenewal) up({ type: 'authenticated', expiresAt: frame.expiresAt })
        break
      }
      case 'subscribed':
        ids.set(`q${frame.query}`, frame.id)
        enter({ ...frame, query: frame.id })
        break
      case 'joined':
        ids.set(`c${frame.channel}`, frame.id)
        enter({ ...frame, channel: frame.id })
        break
      case 'delta':
      case 'change':
        up({ ...frame, query: ids.get(`q${frame.query}`)! })
        break
      case 'message':
      case 'presence':
      case 'gap':
        up({ ...frame, channel: ids.get(`c${frame.channel}`)! })
        break
      default:
        if (frame.type === 'waited') waits.delete(frame.ref)
        if (frame.type === 'error') {
          if (frame.id === undefined) waits.delete(frame.ref!)
          else if (frame.ref === undefined) forget(frame.id)
        }
        up(frame)
    }
  }
  /** Of a place that is only gone on with, nothing is told that was told before. */
  const enter = (frame: Extract<ServerFrame, { type: 'subscribed' | 'joined' }>): void => {
    const { position, resumed, ...rest } = frame
    const text = JSON.stringify(rest)
    const before = told.get(frame.id)
    if (before === undefined || (resumed && before === text)) return
    told.set(frame.id, text)
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
      const isRenewal = isRenewing
      isRenewing = false
      const askedAt = Date.now()
      const answers = owed
      owed = []
      const answer = await post({
        address: addressOf(url, 'poll'),
        token,
        body: JSON.stringify({ frames: [...entering(), ...waits.values()], wait, ...brought }),
        signal: wait === 0 ? signal : one.signal,
        timeoutMs: wait * 1000 + patienceMs,
        read: response => response.json() as Promise<Answer>,
      }).catch(failure => {
        if (!one.signal.aborted) throw failure
      })
      waiting = null
      if (answer === undefined) continue
      const { frames, ...rest } = answer
      brought = rest
      let error: ErrorEvent | null = null
      const ids = new Map<string, number>()
      for (const frame of frames) {
        error = errorOfAll(frame, error)
        take(frame, ids, isRenewal)
      }
      if (error !== null) lose(lossOf(error))
      // Of one that was refused together with its place, that has been said.
      for (const frame of answers) if (frame.type !== 'tracked' || told.has(frame.id)) up(frame)
      const isNews = frames.some(({ type }) => !/^(welcome|subscribed|joined|heartbeat)$/.test(type))
      if (wait > 0 && !isNews && !isAsked && !signal.aborted && Date.now() - askedAt < tooSoonMs) {
        waiting = one
        await ended(one.signal, pauseMs)
      }
    }
  }

  const sendOne = async ({ type: _, id, ref, ...send }: Asked<'send'>): Promise<void> => {
    const join = entries().find((frame): frame is Asked<'join'> => frame.type === 'join' && frame.id === id)
    try {
      if (join === undefined) throw new Refused(409, notJoined)
      const address = addressOf(url, `channels/${encodeURIComponent(join.topic)}`)
      // As whom others know it: its own words then do not come back to it.
      if (brought.poll !== undefined) address.searchParams.set('poll', brought.poll)
      if (join.private === false) address.searchParams.set('private', 'false')
      const read = (response: Response): Promise<{ message: string; position: string }> => response.json()
      const said = await post({ address, token, body: JSON.stringify(send), signal, read })
      if (ref !== undefined) up({ type: 'sent', id, ref, ...said })
    } catch (failure) {
      // Unless nothing at all would have been answered, this one alone was refused.
      if (!(failure instanceof Refused) || failure.isOfAll) fail(failure)
      else up({ type: 'error', id, ref: ref ?? null, ...failure.error! })
    }
  }
  const sendAll = async (): Promise<void> => {
    isSending = true
    for (let send = queue.shift(); send !== undefined && !signal.aborted; send = queue.shift()) await sendOne(send)
    isSending = false
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
        case 'wait':
          waits.set(frame.ref, frame)
          pollAnew()
          break
        case 'send':
          if (queue.push(frame) > maxQueued) lose(broken)
          else if (!isSending) void sendAll()
      }
    },
    close: end,
  }
}

/** Resolves when it is aborted, or after so many milliseconds. */
const ended = (signal: AbortSignal, ms: number): Promise<void> =>
  new Promise(resolve => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener('abort', () => {
      clearTimeout(timer)
      resolve()
    })
  })

const notJoined: ErrorEvent = { code: 'NOT_JOINED', message: 'this client is not in the channel', retry: false }
