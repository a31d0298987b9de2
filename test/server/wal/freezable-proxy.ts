// A way to the database that can be cut and frozen: what a broken network looks like.
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'

export class FreezableProxy {
  readonly url: string
  readonly #server: Server
  readonly #pairs: Set<[Socket, Socket]>

  private constructor(url: string, server: Server, pairs: Set<[Socket, Socket]>) {
    this.url = url
    this.#server = server
    this.#pairs = pairs
  }

  static async create(databaseUrl: string): Promise<FreezableProxy> {
    const target = new URL(databaseUrl)
    const pairs = new Set<[Socket, Socket]>()
    const server = createServer(near => {
      const far = connect(Number(target.port), target.hostname)
      const pair: [Socket, Socket] = [near, far]
      pairs.add(pair)
      for (const socket of pair)
        socket
          .on('error', () => {})
          .on('close', () => {
            near.destroy()
            far.destroy()
            pairs.delete(pair)
          })
      near.pipe(far).pipe(near)
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const url = new URL(databaseUrl)
    url.host = `127.0.0.1:${(server.address() as AddressInfo).port}`
    return new FreezableProxy(url.href, server, pairs)
  }

  /** From now on nothing passes over the connections that are there; they stay open. */
  freeze(): void {
    for (const [near, far] of this.#pairs) {
      near.unpipe(far).pause()
      far.unpipe(near).pause()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy()
    this.#server.close()
    await once(this.#server, 'close')
  }
}
