// A TCP balancer as stands before several nodes: each connection goes to any node that says it is ready, without
// stickiness; whoever comes back meets another one.
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'

export interface BalancerOptions {
  /** From 0 up to, and without, 1. */
  readonly random?: () => number
  /** What a node must answer with 200 to be given connections; left out, it is not asked. */
  readonly readyPath?: string
  readonly askEveryMs?: number
}

/** One that answers later is not ready. */
const answerMs = 500

interface Backend {
  readonly name: string
  readonly process: () => string
  readonly url: URL
  isReady: boolean
}

export class Balancer implements AsyncDisposable {
  /** As a node's own address. */
  readonly url: string
  readonly #server: Server
  readonly #options: BalancerOptions
  readonly #backends = new Map<string, Backend>()
  /** Open connections, by the client's port. */
  readonly #names = new Map<number, { readonly process: string }>()
  readonly #sockets = new Set<Socket>()
  readonly #asking: NodeJS.Timeout | null

  private constructor(server: Server, options: BalancerOptions) {
    this.#server = server
    this.#options = options
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    server.on('connection', near => this.#join(near))
    const { readyPath, askEveryMs = 500 } = options
    this.#asking = readyPath === undefined ? null : setInterval(() => this.#ask(readyPath), askEveryMs)
  }

  static async start(options: BalancerOptions = {}): Promise<Balancer> {
    const server = createServer({ allowHalfOpen: true })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new Balancer(server, options)
  }

  /** @param url of the node
   *  @param process names what listens there now, for whoever asks where a connection leads */
  add(name: string, url: string, process: () => string = () => name): void {
    this.#backends.set(name, { name, process, url: new URL(url), isReady: this.#options.readyPath === undefined })
  }

  /** Gives it no more connections; those that are there stay. */
  remove(name: string): void {
    this.#backends.delete(name)
  }

  /** Names of those that are given connections. */
  get ready(): string[] {
    return [...this.#backends.values()].filter(({ isReady }) => isReady).map(({ name }) => name)
  }

  /** The process that the open connection leads to that comes from this port: what was under way when it died is still its own. */
  behind(clientPort: number): string | undefined {
    return this.#names.get(clientPort)?.process
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#asking !== null) clearInterval(this.#asking)
    for (const socket of this.#sockets) socket.destroy()
    this.#server.close()
    await once(this.#server, 'close')
  }

  /** With nobody ready, anybody: refusing everyone helps nobody. */
  #pick(): Backend | undefined {
    const all = [...this.#backends.values()]
    const ready = all.filter(({ isReady }) => isReady)
    const candidates = ready.length > 0 ? ready : all
    return candidates[Math.floor((this.#options.random ?? Math.random)() * candidates.length)]
  }

  #join(near: Socket): void {
    const backend = this.#pick()
    const port = near.remotePort
    if (backend === undefined || port === undefined) {
      near.destroy()
      return
    }
    const far = connect({ host: backend.url.hostname, port: Number(backend.url.port), allowHalfOpen: true })
    const name = { process: backend.process() }
    this.#names.set(port, name)
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#sockets.add(from)
      from.setNoDelay()
      from.on('data', chunk => {
        if (!to.write(chunk)) from.pause()
      })
      to.on('drain', () => from.resume())
      from.on('end', () => to.end())
      from.on('error', () => to.resetAndDestroy())
      from.on('close', () => {
        this.#sockets.delete(from)
        to.destroySoon()
        // Another connection may come from the same port by now.
        if (from === near && this.#names.get(port) === name) this.#names.delete(port)
      })
    }
  }

  #ask(readyPath: string): void {
    for (const backend of this.#backends.values()) {
      fetch(new URL(readyPath, backend.url), { signal: AbortSignal.timeout(answerMs) }).then(
        async response => {
          await response.body?.cancel()
          backend.isReady = response.status === 200
        },
        () => {
          backend.isReady = false
        },
      )
    }
  }
}
