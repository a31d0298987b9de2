// A node that says what it is told to: for states that a real one seldom is in. It serves the real page.
import { once } from 'node:events'
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { exchangeOf } from '../../../src/server/deliver/exchange.ts'
import type { CommitTrace } from '../../../src/server/figures/commit-trace.ts'
import { stages } from '../../../src/server/figures/stage.ts'
import { pageRoutes } from '../../../src/server/inspect/page-files.ts'
import type { InspectEvent, Overview } from '../../../src/server/inspect/wire.ts'

export class FakeNode implements AsyncDisposable {
  readonly url: string
  /** How often the stream was asked for. */
  asked = 0
  /** What the stream is refused with; null: it is not. */
  refusal: { readonly status: number; readonly body: string } | null = null
  /** What the lists answer, by path; null: they fail. */
  readonly lists = new Map<string, object | null>()
  readonly #server: Server
  readonly #streams = new Set<ServerResponse>()

  private constructor(server: Server) {
    this.#server = server
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  }

  static async start(): Promise<FakeNode> {
    const server = createServer()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const node = new FakeNode(server)
    const files = new Map(pageRoutes().map(route => [route.path, route]))
    server.on('request', (request, response) => {
      const { pathname } = new URL(request.url!, node.url)
      const file = files.get(pathname)
      if (file !== undefined) return void file.answer(exchangeOf(request, response))
      if (pathname === '/v1/inspect/stream') return node.#stream(response)
      const list = node.lists.get(pathname)
      const body = list === null ? { code: 'INTERNAL', message: 'the server failed; see its log', retry: true } : list
      response.writeHead(list === null ? 500 : 200, { 'content-type': 'application/json' }).end(JSON.stringify(body))
    })
    return node
  }

  get streams(): number {
    return this.#streams.size
  }

  say({ event, data }: InspectEvent): void {
    for (const stream of this.#streams) stream.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`)
  }

  /** The last word of a stream. */
  end(error: object): void {
    for (const stream of this.#streams) stream.end(`event: error\ndata: ${JSON.stringify(error)}\n\n`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
    await once(this.#server, 'close')
  }

  #stream(response: ServerResponse): void {
    this.asked += 1
    if (this.refusal !== null) {
      response.writeHead(this.refusal.status, { 'content-type': 'application/json' }).end(this.refusal.body)
      return
    }
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    this.#streams.add(response)
    response.on('close', () => this.#streams.delete(response))
    this.say({ event: 'overview', data: overview() })
  }
}

export const overview = (more: Partial<Overview> = {}): Overview => ({
  at: new Date().toISOString(),
  release: '1.2.3',
  node: '0123456789abcdef',
  leads: false,
  stale: false,
  lagMs: 4,
  lagBytes: 0,
  retainedWalBytes: 1_000_000,
  slotMaxBytes: 1_000_000_000,
  connections: 3,
  subscriptions: 2,
  audiences: 1,
  queuedBytes: 0,
  commitsPerSecond: 200,
  changesPerSecond: 200,
  deliveriesPerSecond: 600,
  bytesPerSecond: 12_000,
  stages: stages.map(stage => ({ stage, perSecond: 200, p50Ms: 0.2, p99Ms: 3 })),
  refusals: [],
  resyncs: [],
  ...more,
})

export const trace = (number: number): CommitTrace => ({
  xid: number,
  lsn: `0/${number.toString(16).toUpperCase()}`,
  committedAtMs: 1_800_000_000_000 + number,
  bytes: 120,
  changes: 1,
  tables: [`public.table_${number}`],
  audiences: 1,
  deliveries: 3,
  spans: stages.map((stage, place) => ({
    stage,
    startedAtMs: 1_800_000_000_000 + number + place * 0.1,
    durationMs: 0.1,
    count: 1,
  })),
})
