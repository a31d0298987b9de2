// The way to the master that Sentinels name.
//
// ioredis's own way asks one Sentinel after the other, so that one that swallows packets costs its whole timeout at each attempt;
// believes the first that answers, which after a failover may be one that has not heard of it; and goes on with its timers
// after the client was closed. Here all are asked at once, and the one that knows of the newest failover is believed.
//
// While a connection stands the Sentinels are listened to: after an orderly switch, or when the old master was only cut off from
// them, it takes itself for the master for ten seconds more, and what it confirms meanwhile is lost.
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { AbstractConnector, Redis } from 'ioredis'
import type { Host, SentinelPlace } from './redis-url.ts'

/** A Sentinel that takes longer is left out. */
const answerMs = 1000
const retryMs = 250
/** To one that is listened to. */
const listenAgainMs = 2000

/** A connection that is given up is not waited for, since its other end may be away. */
export const disconnectMs = 1

/** As an option of ioredis. */
export const masterConnector = (place: SentinelPlace): (new () => AbstractConnector) =>
  class extends MasterConnector {
    constructor() {
      super(place)
    }
  }

class MasterConnector extends AbstractConnector {
  readonly #place: SentinelPlace
  #attempt = new AbortController()

  constructor(place: SentinelPlace) {
    super(disconnectMs)
    this.#place = place
  }

  /** Goes on until there is a master, or `disconnect`. */
  override async connect(tell: (type: string, error: Error) => void): Promise<Socket> {
    this.#attempt.abort()
    this.#attempt = new AbortController()
    const { signal } = this.#attempt
    for (;;) {
      const named = await newestMaster(this.#place, signal).catch(
        (error: Error) => void (signal.aborted || tell('error', error)),
      )
      // ioredis's word for it.
      if (signal.aborted) throw new Error('Connection is closed.')
      if (named !== undefined) return this.#connectTo(named)
      await sleep(retryMs, undefined, { signal }).catch(() => {})
    }
  }

  /** One that was demoted, and has not been told yet who is master, is no master: asked anew. */
  override check(info: { role?: string }): boolean {
    return info.role === undefined || info.role === 'master'
  }

  override disconnect(): void {
    this.#attempt.abort()
    super.disconnect()
  }

  #connectTo(named: Named): Socket {
    const { tls } = this.#place
    const stream = tls === null ? connect({ ...named.master }) : connectTls({ ...tls, ...named.master })
    this.stream = stream
    stream.once('error', error => {
      this.firstError = error
    })
    const stopListening = listen(this.#place, named, () => stream.destroy())
    stream.once('close', stopListening)
    return stream
  }
}

/** What a Sentinel says. */
interface Named {
  readonly master: Host
  /** Counts the failovers. */
  readonly epoch: number
}

/** Of the first answers of more than half, that of the newest configuration. @throws saying what the Sentinels said */
async function newestMaster(place: SentinelPlace, signal: AbortSignal): Promise<Named> {
  const { hosts } = place
  const answers: Named[] = []
  const failures: string[] = []
  const { promise: enough, resolve } = Promise.withResolvers<void>()
  const done = new AbortController()
  const ended = AbortSignal.any([signal, done.signal])
  for (const host of hosts)
    askOnce(host, place, ended)
      .then(
        answer => void answers.push(answer),
        (error: Error) => void failures.push(`${host.host}:${host.port}: ${error.message}`),
      )
      .finally(() => {
        if (answers.length * 2 > hosts.length || answers.length + failures.length === hosts.length) resolve()
      })
  await enough
  done.abort()
  const newest = answers.sort((a, b) => b.epoch - a.epoch)[0]
  if (newest === undefined)
    throw new Error(`No Sentinel names a master ${JSON.stringify(place.master)}: ${failures.join('; ')}`)
  return newest
}

async function askOnce(host: Host, place: SentinelPlace, signal: AbortSignal): Promise<Named> {
  const sentinel = openSentinel(host, place, () => null)
  let reason: Error | undefined
  sentinel.on('error', (error: Error) => {
    reason ??= error
  })
  const end = (): void => closeSentinel(sentinel)
  signal.addEventListener('abort', end, { once: true })
  try {
    return await ask(sentinel, place.master)
  } catch (error) {
    throw reason ?? error
  } finally {
    signal.removeEventListener('abort', end)
    end()
  }
}

/** Calls once a Sentinel names another master than the one that was named. @returns to stop */
function listen(place: SentinelPlace, named: Named, onOther: () => void): () => void {
  const isOther = (host: string, port: string | number): boolean =>
    host !== named.master.host || Number(port) !== named.master.port
  const sentinels = place.hosts.map(host => {
    const sentinel = openSentinel(host, place, () => listenAgainMs)
    sentinel.on('error', () => {})
    sentinel.on('message', (_channel: string, text: string) => {
      const [master, , , newHost = '', newPort = ''] = text.split(' ')
      if (master === place.master && isOther(newHost, newPort)) onOther()
    })
    sentinel.on('ready', async () => {
      try {
        await sentinel.subscribe('+switch-master')
        // What was told before is not told again. One that lags behind names an older master.
        const now = await ask(sentinel, place.master)
        if (now.epoch > named.epoch && isOther(now.master.host, now.master.port)) onOther()
      } catch {
        // Listened to again when it is connected again; meanwhile the others tell.
      }
    })
    return sentinel
  })
  return () => {
    for (const sentinel of sentinels) closeSentinel(sentinel)
  }
}

async function ask(sentinel: Redis, master: string): Promise<Named> {
  const [address, fields] = await Promise.all([
    sentinel.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', master) as Promise<[string, string] | null>,
    // While a failover goes on its epoch stands here already, not yet the address.
    sentinel.call('SENTINEL', 'MASTER', master).catch(() => []) as Promise<readonly string[]>,
  ])
  if (address === null) throw new Error('it knows no such master')
  const at = fields.indexOf('config-epoch')
  return { master: { host: address[0], port: Number(address[1]) }, epoch: at < 0 ? 0 : Number(fields[at + 1]) }
}

const openSentinel = (host: Host, { sentinelLogin, tls }: SentinelPlace, retryStrategy: () => number | null): Redis =>
  new Redis({
    ...host,
    ...sentinelLogin,
    ...(tls === null ? {} : { tls: { ...tls } }),
    retryStrategy,
    enableReadyCheck: false,
    autoResubscribe: false,
    disableClientInfo: true,
    connectTimeout: answerMs,
    commandTimeout: answerMs,
    disconnectTimeout: disconnectMs,
    keepAlive: 10_000,
  })

function closeSentinel(sentinel: Redis): void {
  sentinel.disconnect()
  sentinel.stream?.destroy()
}
