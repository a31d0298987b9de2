// Whoever watches a node and takes too slowly: over real sockets, with commits made here.
import { once } from 'node:events'
import { request as ask, createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { type Exchange, exchangeOf } from '../../../src/server/deliver/exchange.ts'
import { Turn } from '../../../src/server/deliver/send-queue.ts'
import { CommitTraces } from '../../../src/server/figures/commit-trace.ts'
import { Figures } from '../../../src/server/figures/figures.ts'
import { Overviews } from '../../../src/server/inspect/overviews.ts'
import { Watchers } from '../../../src/server/inspect/watchers.ts'
import type { CommitsSeen } from '../../../src/server/inspect/wire.ts'
import { createLog } from '../../../src/server/log/log.ts'

const tables = Array.from({ length: 20 }, (_, place) => `public.${'long'.repeat(30)}${place}`)

let figures: Figures
let traces: CommitTraces
let watchers: Watchers
let overviews: Overviews
let exchanges: Exchange[]
let end: () => void
let port: number

async function open(slowConsumerMs = 60_000): Promise<void> {
  figures = new Figures()
  traces = new CommitTraces()
  const gauges = () => ({
    ...{ leads: true, isStale: false, slot: null, slotMaxBytes: 1, lagBytes: 0, lagMs: 0 },
    ...{ connections: 0, subscriptions: 0, audiences: 0, queuedBytes: 0 },
  })
  overviews = new Overviews({ figures, gauges, nodeId: 'n', release: 'r' })
  const log = createLog('silent')
  watchers = new Watchers({ overviews, traces, figures, turn: new Turn(), slowConsumerMs, log, commitsEveryMs: 1 })
  exchanges = []
  const server = createServer((request, response) => {
    const exchange = exchangeOf(request, response)
    exchanges.push(exchange)
    void watchers.route.answer(exchange)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  port = (server.address() as AddressInfo).port
  end = () => {
    server.closeAllConnections()
    server.close()
  }
}

afterEach(() => {
  watchers.close()
  overviews.close()
  end()
})

class Reader {
  readonly response: IncomingMessage
  readonly commits: CommitsSeen[] = []
  #text = ''

  private constructor(response: IncomingMessage) {
    this.response = response
    response.setEncoding('utf8').on('data', (text: string) => {
      const blocks = (this.#text + text).split('\n\n')
      this.#text = blocks.pop()!
      for (const block of blocks)
        if (block.startsWith('event: commits')) this.commits.push(JSON.parse(block.slice(block.indexOf('data: ') + 6)))
    })
    response.on('error', () => {})
  }

  static async open(): Promise<Reader> {
    const request = ask({ host: '127.0.0.1', port, path: '/v1/inspect/stream' }).end()
    request.on('error', () => {})
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    return new Reader(response)
  }

  /** Commits shown or counted. */
  get told(): number {
    return this.commits.reduce((sum, { traces: shown, skipped }) => sum + shown.length + skipped, 0)
  }
}

function commit(): void {
  figures.commits += 1
  const { commits: xid } = figures
  const numbers = { committedAtMs: 0, bytes: 0, changes: 0, audiences: 0, deliveries: 0 }
  traces.record({ xid, lsn: '0/0', ...numbers, tables, spans: [] })
}

/** Until the condition holds, 25 commits a turn. */
async function busyUntil(condition: () => boolean): Promise<void> {
  for (const endMs = Date.now() + 20_000; !condition(); ) {
    if (Date.now() > endMs) throw new Error('timed out')
    for (let count = 0; count < 25; count += 1) commit()
    await new Promise(resolve => setTimeout(resolve, 1))
  }
}

test('[P7] one who takes nothing is told nothing more, and when it takes again what it missed is counted', async () => {
  await open()
  const slow = await Reader.open()
  const quick = await Reader.open()
  slow.response.pause()
  const { socket } = exchanges[0]!.request
  let mostWaiting = 0
  let stalledAt: number | null = null
  // The kernel's own buffers are full, and then thousands of commits pass.
  await busyUntil(() => {
    mostWaiting = Math.max(mostWaiting, socket.writableLength)
    if (socket.writableLength === 0) stalledAt = null
    else stalledAt ??= quick.told
    return stalledAt !== null && quick.told > stalledAt + 5000
  })
  // One event at the most, of 25 commits with 20 long names each.
  expect(mostWaiting).toBeLessThan(150_000)
  slow.response.resume()
  await busyUntil(() => slow.commits.some(({ skipped }) => skipped > 1000))
  await expect.poll(() => slow.told).toBe(figures.commits)
  await expect.poll(() => quick.told).toBe(figures.commits)
})

test('[P7] one who takes nothing for too long is let go', async () => {
  await open(1000)
  const slow = await Reader.open()
  const quick = await Reader.open()
  slow.response.pause()
  await busyUntil(() => exchanges[0]!.request.socket.writableLength > 0)
  await expect.poll(() => exchanges[0]!.request.socket.destroyed).toBe(true)
  const told = quick.told
  await busyUntil(() => quick.told > told)
})

test('traces end with the last who watches', async () => {
  await open()
  const readers = [await Reader.open(), await Reader.open()]
  expect(traces.isWatched).toBe(true)
  readers[0]!.response.destroy()
  await expect.poll(() => exchanges[0]!.request.socket.destroyed).toBe(true)
  expect(traces.isWatched).toBe(true)
  readers[1]!.response.destroy()
  await expect.poll(() => traces.isWatched).toBe(false)
})
