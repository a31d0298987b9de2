// A port of its own for those who run the service, which no client need reach: probes, and the operators' addresses.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { noProxies, type TrustedProxies } from '../config/trusted-proxies.ts'
import { answerRefusal, exchangeOf } from '../deliver/exchange.ts'
import { settleForwarded } from '../deliver/forwarded.ts'
import { answerProbe, type Probes } from '../deliver/probes.ts'
import type { Log } from '../log/log.ts'
import { repeated } from '../log/log-repeated.ts'
import type { OperatorDoor } from './door.ts'

export interface AdminServerOptions {
  readonly probes: Probes
  /** Null: nobody has a token, so only probes are answered. */
  readonly door: OperatorDoor | null
  readonly log: Log
  readonly random: () => number
  /** Left out: nobody is believed what it says of others. */
  readonly trustedProxies?: TrustedProxies
}

/** Scrapers, balancers and a few inspectors; past it a socket is closed unheard. */
const maxSockets = 256

export class AdminServer {
  readonly #options: AdminServerOptions
  readonly #server = createServer(
    { headersTimeout: 10_000, requestTimeout: 20_000, maxHeaderSize: 16 * 1024 },
    (request, response) => void this.#answer(request, response),
  )

  constructor(options: AdminServerOptions) {
    this.#options = options
    this.#server.maxConnections = maxSockets
  }

  /** @param port 0 for any free one. @returns the port it listens on */
  async listen(host: string, port: number): Promise<number> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen(port, host, () => {
        this.#server.off('error', reject)
        resolve()
      })
    })
    return (this.#server.address() as AddressInfo).port
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return
    const closed = new Promise<void>(resolve => this.#server.close(() => resolve()))
    this.#server.closeAllConnections()
    await closed
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { probes, door, log, random, trustedProxies = noProxies } = this.#options
    settleForwarded(request, trustedProxies)
    const exchange = exchangeOf(request, response)
    try {
      const probed = answerProbe(probes, exchange)
      if (probed !== null) await probed
      else if (door?.has(exchange.path)) await door.answer(exchange)
      else throw new TidegateError('NOT_FOUND', `there is nothing at ${JSON.stringify(exchange.path.slice(0, 200))}`)
    } catch (error) {
      if (!response.headersSent) {
        answerRefusal(exchange, error, log, random)
        return
      }
      repeated(log).error({ err: error }, 'a response to an operator failed half way')
      response.destroy()
    }
  }
}
