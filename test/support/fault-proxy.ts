// A proxy before a server, as stands between browsers and services, with faults that are switched on and off while it runs: those
// of a network by the link before it, those of a proxy by itself.
import { once } from 'node:events'
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type Direction, FaultyLink } from './faulty-link.ts'

export class FaultProxy implements AsyncDisposable {
  readonly url: string
  /** What the network does: cut, freeze, leaveHalfOpen, bytesPerSecond, idleMs, isRefusing. */
  readonly link: FaultyLink
  /** The status with which every Upgrade is answered; null: it passes. */
  upgradeStatus: number | null = null
  /** Responses are held until they end. */
  isBuffering = false
  /** Upgrades that passed, and requests. */
  upgrades = 0
  requests = 0
  readonly #server: Server
  #target: URL
  readonly #swallowed = new Set<Direction>()
  readonly #tunnels = new Set<Tunnel>()

  private constructor(server: Server, target: URL, link: FaultyLink) {
    this.#server = server
    this.#target = target
    this.link = link
    this.url = link.url
    server.on('request', (incoming, response) => this.#pass(incoming, response))
    server.on('upgrade', (incoming, socket, head) => this.#upgrade(incoming, socket, head))
  }

  /** @param targetUrl of an HTTP server on this machine */
  static async before(targetUrl: string): Promise<FaultProxy> {
    // A header that takes long is not a fault of this proxy's.
    const server = createServer({ requestTimeout: 0, headersTimeout: 0, keepAliveTimeout: 0 })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const link = await FaultyLink.to(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    return new FaultProxy(server, new URL(targetUrl), link)
  }

  /** What comes from now on goes there: as when a server is started anew. */
  redirect(targetUrl: string): void {
    this.#target = new URL(targetUrl)
  }

  /** Bytes of connections that were upgraded vanish on these ways: those that are there, and those to come. */
  swallow(directions: readonly Direction[]): void {
    for (const direction of directions) this.#swallowed.add(direction)
  }

  /** No fault any more. A connection that lost bytes is cut: what came after would make no sense. */
  mend(): void {
    this.upgradeStatus = null
    this.isBuffering = false
    this.link.isRefusing = false
    this.link.bytesPerSecond = null
    this.link.idleMs = null
    this.#swallowed.clear()
    for (const tunnel of this.#tunnels) if (tunnel.isBroken) tunnel.destroy()
    this.link.thaw()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.link[Symbol.asyncDispose]()
    for (const tunnel of this.#tunnels) tunnel.destroy()
    this.#server.closeAllConnections()
    this.#server.close()
    await once(this.#server, 'close')
  }

  #pass(incoming: IncomingMessage, response: ServerResponse): void {
    this.requests += 1
    const { hostname, port } = this.#target
    const { method, url: path, headers } = incoming
    const outgoing = request({ hostname, port, method, path, headers, agent: false })
    incoming.pipe(outgoing)
    outgoing.on('response', answer => {
      void this.#answer(answer, response).catch(() => response.destroy())
    })
    outgoing.on('error', () => {
      if (response.headersSent) response.destroy()
      else response.writeHead(502, { 'content-type': 'text/html' }).end('<html>bad gateway</html>')
    })
    response.on('close', () => outgoing.destroy())
  }

  async #answer(answer: IncomingMessage, response: ServerResponse): Promise<void> {
    // Those of the connection are of one hop alone.
    const { connection: _, 'transfer-encoding': __, 'keep-alive': ___, ...headers } = answer.headers
    if (this.isBuffering) {
      const chunks: Buffer[] = []
      for await (const chunk of answer) chunks.push(chunk as Buffer)
      response.writeHead(answer.statusCode!, headers).end(Buffer.concat(chunks))
      return
    }
    response.writeHead(answer.statusCode!, headers)
    response.flushHeaders()
    for await (const chunk of answer) if (!response.write(chunk)) await once(response, 'drain')
    response.end()
  }

  #upgrade(incoming: IncomingMessage, near: Duplex, head: Buffer): void {
    if (this.upgradeStatus !== null) {
      const body = '<html>no</html>'
      near.on('error', () => {})
      near.end(
        `HTTP/1.1 ${this.upgradeStatus} No\r\nContent-Type: text/html\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
      )
      return
    }
    this.upgrades += 1
    const lines = [`${incoming.method} ${incoming.url} HTTP/1.1`]
    for (let i = 0; i < incoming.rawHeaders.length; i += 2)
      lines.push(`${incoming.rawHeaders[i]}: ${incoming.rawHeaders[i + 1]}`)
    const far = connect({ host: this.#target.hostname, port: Number(this.#target.port), noDelay: true })
    far.write(`${lines.join('\r\n')}\r\n\r\n`)
    const tunnel = new Tunnel(near, far, this.#swallowed)
    tunnel.carry('up', head)
    this.#tunnels.add(tunnel)
    far.on('close', () => this.#tunnels.delete(tunnel))
  }
}

/** A connection that was upgraded. */
class Tunnel {
  /** Bytes of it were swallowed. */
  isBroken = false
  readonly #near: Duplex
  readonly #far: Socket
  readonly #swallowed: ReadonlySet<Direction>
  /** The end of the server's answer, as far as it has come: frames are what follows it. */
  #answer: Buffer | null = Buffer.alloc(0)

  constructor(near: Duplex, far: Socket, swallowed: ReadonlySet<Direction>) {
    this.#near = near
    this.#far = far
    this.#swallowed = swallowed
    near.on('data', chunk => this.carry('up', chunk))
    far.on('data', chunk => this.#fromServer(chunk))
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      from.on('end', () => to.end())
      from.on('error', () => {})
      from.on('close', () => to.destroy())
      to.on('drain', () => from.resume())
    }
  }

  carry(direction: Direction, bytes: Buffer): void {
    if (bytes.length === 0) return
    if (this.#swallowed.has(direction)) {
      this.isBroken = true
      return
    }
    const [from, to] = direction === 'up' ? [this.#near, this.#far] : [this.#far, this.#near]
    if (!to.write(bytes)) from.pause()
  }

  destroy(): void {
    this.#near.destroy()
    this.#far.destroy()
  }

  #fromServer(chunk: Buffer): void {
    if (this.#answer === null) {
      this.carry('down', chunk)
      return
    }
    const answer = Buffer.concat([this.#answer, chunk])
    const end = answer.indexOf('\r\n\r\n')
    this.#answer = end < 0 ? answer : null
    const begin = this.#answer === null ? end + 4 - (answer.length - chunk.length) : chunk.length
    this.#near.write(chunk.subarray(0, begin))
    this.carry('down', chunk.subarray(begin))
  }
}
