// The way to the master that Sentinels name.
//
// ioredis's own way asks one Sentinel after the other, so that one that swallows packets costs its whole timeout at each attempt;
// believes the first that answers, which after a failover may be one that has not heard of it; and goes on with its timers
// after the client was closed. Here all are asked at once, and the one that knows of the newest failover is believed.
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { AbstractConnector, Redis } from 'ioredis'
import type { Host, SentinelPlace } from './redis-url.ts'

/** A Sentinel that takes longer is left out. */
const answerMs = 1000
const retryMs = 250

/** A connection that is given up is not waited for, since its other end may be away. */
export const disconnectMs = 1

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
      const master = await newestMaster(this.#place, signal).catch(
        (error: Error) => void (signal.aborted || tell('error', error)),
      )
      // ioredis's word for it.
      if (signal.aborted) throw new Error('Connection is closed.')
      if (master !== undefined) {
        const { tls } = this.#place
        this.stream = tls === null ? connect({ ...master }) : connectTls({ ...tls, ...master })
        this.stream.once('error', error => {
          this.firstError = error
        })
        return this.stream
      }
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
}

/** As an option of ioredis. */
export const masterConnector = (place: SentinelPlace): (new () => AbstractConnector) =>
  class extends MasterConnector {
    constructor() {
      super(place)
    }
  }

interface Answer {
  readonly master: Host
  /** Counts the failovers. */
  readonly epoch: number
}

/** Of the first answers of more than half, that of the newest configuration. @throws saying what the Sentinels said */
async function newestMaster(place: SentinelPlace, signal: AbortSignal): Promise<Host> {
  const { hosts } = place
  const answers: Answer[] = []
  const failures: string[] = []
  const { promise: enough, resolve } = Promise.withResolvers<void>()
  const done = new AbortController()
  const ended = AbortSignal.any([signal, done.signal])
  for (const host of hosts)
    askSentinel(host, place, ended)
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
  return newest.master
}

async function askSentinel(
  host: Host,
  { master, sentinelLogin, tls }: SentinelPlace,
  signal: AbortSignal,
): Promise<Answer> {
  const sentinel = new Redis({
    ...host,
    ...sentinelLogin,
    disconnectTimeout: disconnectMs,
    ...(tls === null ? {} : { tls: { ...tls } }),
    lazyConnect: true,
    enableReadyCheck: false,
    disableClientInfo: true,
    retryStrategy: () => null,
    connectTimeout: answerMs,
    commandTimeout: answerMs,
  })
  let reason: Error | undefined
  sentinel.on('error', (error: Error) => {
    reason ??= error
  })
  const end = (): void => {
    sentinel.disconnect()
    sentinel.stream?.destroy()
  }
  signal.addEventListener('abort', end, { once: true })
  try {
    const asked = Promise.all([
      sentinel.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', master) as Promise<[string, string] | null>,
      // While a failover goes on its epoch stands here already, not yet the address.
      sentinel.call('SENTINEL', 'MASTER', master).catch(() => []) as Promise<readonly string[]>,
    ])
    const [address, fields] = await asked
    if (address === null) throw new Error('it knows no such master')
    const at = fields.indexOf('config-epoch')
    return { master: { host: address[0], port: Number(address[1]) }, epoch: at < 0 ? 0 : Number(fields[at + 1]) }
  } catch (error) {
    throw reason ?? error
  } finally {
    signal.removeEventListener('abort', end)
    end()
  }
}
