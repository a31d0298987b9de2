// A TCP balancer without stickiness: it throws dice among those nodes that say they are ready for themselves.
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'

const probeMs = 100

export class RandomBalancer implements AsyncDisposable {
  readonly url: string
  readonly #server: Server
  readonly #urls: readonly string[]
  #ready: readonly string[] = []
  readonly #sockets = new Set<Socket>()
  readonly #timer: NodeJS.Timeout

  private constructor(server: Server, urls: readonly string[]) {
    this.#server = server
    this.#urls = urls
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    server.on('connection', socket => this.#carry(socket))
    this.#timer = setInterval(() => void this.#probe(), probeMs)
  }

  static async before(urls: readonly string[]): Promise<RandomBalancer> {
    const server = createServer()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const balancer = new RandomBalancer(server, urls)
    await balancer.#probe()
    return balancer
  }

  /** Of the nodes, those that get connections. */
  get ready(): readonly string[] {
    return this.#ready
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer)
    for (const socket of this.#sockets) socket.destroy()
    this.#server.close()
    await once(this.#server, 'close')
  }

  async #probe(): Promise<void> {
    const answers = await Promise.all(
      this.#urls.map(async url => {
        const response = await fetch(`${url}/ready?scope=node`).catch(() => null)
        await response?.arrayBuffer()
        return response?.status === 200
      }),
    )
    this.#ready = this.#urls.filter((_, place) => answers[place])
  }

  #carry(near: Socket): void {
    const url = this.#ready[Math.floor(Math.random() * this.#ready.length)]
    if (url === undefined) {
      near.destroy()
      return
    }
    const far = connect({ host: '127.0.0.1', port: Number(new URL(url).port), noDelay: true })
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#sockets.add(one)
      one.on('error', () => other.destroy())
      one.on('close', () => {
        this.#sockets.delete(one)
        other.destroySoon()
      })
      one.pipe(other)
    }
  }
}
