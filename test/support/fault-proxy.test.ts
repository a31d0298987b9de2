import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { expect, test } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { eventually } from './eventually.ts'
import { FaultProxy } from './fault-proxy.ts'
import { startDebianNginx } from './nginx.ts'

/** What stands behind: a page, a stream that says what the test says, a socket that says everything back. */
class Behind implements AsyncDisposable {
  readonly #server = createServer((request, response) => {
    if (request.url === '/stream') {
      response.writeHead(200, { 'content-type': 'text/event-stream', 'x-accel-buffering': 'no' })
      response.write('data: first\n\n')
      this.streams.push(response)
    } else if (request.url === '/large') response.end('x'.repeat(5000))
    else response.end('page')
  })
  readonly #sockets = new WebSocketServer({ server: this.#server })
  readonly streams: ServerResponse[] = []
  readonly heard: string[] = []
  closed = 0

  static async start(): Promise<Behind> {
    const behind = new Behind()
    behind.#sockets.on('connection', socket => {
      socket.on('error', () => {})
      socket.on('close', () => behind.closed++)
      socket.on('message', data => {
        behind.heard.push(String(data))
        socket.send(`you said ${data}`)
      })
    })
    behind.#server.listen(0, '127.0.0.1')
    await once(behind.#server, 'listening')
    return behind
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets.clients) socket.terminate()
    this.#server.closeAllConnections()
    this.#server.close()
  }
}

/** A WebSocket and what it heard. */
class Talk implements Disposable {
  readonly heard: string[] = []
  readonly socket: WebSocket
  code: number | null = null
  /** The status of an answer that was no 101. */
  refused: number | null = null

  constructor(url: string) {
    this.socket = new WebSocket(url)
    this.socket.on('message', data => this.heard.push(String(data)))
    this.socket.on('close', code => {
      this.code = code
    })
    this.socket.on('unexpected-response', (_request, response) => {
      this.refused = response.statusCode ?? 0
    })
    this.socket.on('error', () => {})
  }

  static async open(url: string): Promise<Talk> {
    const talk = new Talk(url)
    await once(talk.socket, 'open')
    return talk
  }

  async says(text: string): Promise<void> {
    this.socket.send(text)
    await eventually(() => expect(this.heard).toContain(`you said ${text}`))
  }

  [Symbol.dispose](): void {
    this.socket.terminate()
  }
}

/** A GET whose bytes are kept as they come. */
class Reading {
  text = ''
  isOver = false
  readonly socket: Socket

  constructor(url: string, path: string) {
    const { hostname, port } = new URL(url)
    this.socket = connect({ host: hostname, port: Number(port) })
    this.socket.setEncoding('utf8').on('data', text => {
      this.text += text
    })
    this.socket.on('error', () => {})
    this.socket.on('close', () => {
      this.isOver = true
    })
    this.socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)
  }

  has(text: string): Promise<void> {
    return eventually(() => expect(this.text).toContain(text))
  }

  over(): Promise<void> {
    return eventually(() => expect(this.isOver).toBe(true))
  }
}

async function standing(): Promise<{ behind: Behind; proxy: FaultProxy } & AsyncDisposable> {
  const behind = await Behind.start()
  const proxy = await FaultProxy.before(behind.url)
  return {
    behind,
    proxy,
    [Symbol.asyncDispose]: async () => {
      await proxy[Symbol.asyncDispose]()
      await behind[Symbol.asyncDispose]()
    },
  }
}

test('without a fault everything passes as it comes, and ends as it ends', async () => {
  await using it = await standing()
  using talk = await Talk.open(it.proxy.url)
  await talk.says('hello')
  const stream = new Reading(it.proxy.url, '/stream')
  await stream.has('data: first')
  it.behind.streams[0]!.write('data: second\n\n')
  await stream.has('data: second')
  expect(stream.isOver).toBe(false)
  it.behind.streams[0]!.end()
  await stream.over()
  expect(await (await fetch(it.proxy.url)).text()).toBe('page')
  talk.socket.close(1000)
  await eventually(() => expect([talk.code, it.behind.closed]).toEqual([1000, 1]))
})

test('cut: both ends get a reset, and who comes again is let through', async () => {
  await using it = await standing()
  using talk = await Talk.open(it.proxy.url)
  const stream = new Reading(it.proxy.url, '/stream')
  await stream.has('first')
  it.proxy.link.cut()
  await eventually(() => expect([talk.code, it.behind.closed]).toEqual([1006, 1]))
  await stream.over()
  await eventually(() => expect(it.behind.streams[0]!.destroyed).toBe(true))
  using again = await Talk.open(it.proxy.url)
  await again.says('again')
})

test.each(['up', 'down'] as const)('stalled %s: what is said arrives when it is mended, and not before', async way => {
  await using it = await standing()
  using talk = await Talk.open(it.proxy.url)
  using other = await Talk.open(it.proxy.url)
  it.proxy.link.freeze([way])
  talk.socket.send('hello')
  other.socket.send('hello')
  using third = await Talk.open(it.proxy.url)
  await third.says('hello')
  expect([talk.heard, other.heard]).toEqual([[], []])
  expect(it.behind.heard.length).toBe(way === 'up' ? 1 : 3)
  it.proxy.mend()
  await eventually(() => expect([talk.heard, other.heard]).toEqual([['you said hello'], ['you said hello']]))
})

test('half-open: the server is gone, the client stays connected and hears nothing', async () => {
  await using it = await standing()
  using talk = await Talk.open(it.proxy.url)
  it.proxy.link.leaveHalfOpen('far')
  await eventually(() => expect(it.behind.closed).toBe(1))
  talk.socket.send('hello')
  using other = await Talk.open(it.proxy.url)
  await other.says('hello')
  expect([talk.socket.readyState, talk.heard, talk.code]).toEqual([WebSocket.OPEN, [], null])
})

test('slow: so many bytes come in a second, and all the rest at once when it is mended', async () => {
  await using it = await standing()
  it.proxy.link.bytesPerSecond = 5000
  const beganAt = performance.now()
  expect((await (await fetch(`${it.proxy.url}/large`)).text()).length).toBe(5000)
  expect(performance.now() - beganAt).toBeGreaterThan(900)
  it.proxy.link.bytesPerSecond = 50
  const reading = new Reading(it.proxy.url, '/large')
  await reading.has('HTTP')
  expect(reading.text.length).toBeLessThan(500)
  it.proxy.mend()
  await reading.over()
  expect(reading.text.length).toBeGreaterThan(5000)
})

test.each([400, 403, 502])('Upgrade refused with %i: everything else passes', async status => {
  await using it = await standing()
  it.proxy.upgradeStatus = status
  using talk = new Talk(it.proxy.url)
  await eventually(() => expect(talk.refused).toBe(status))
  expect(await (await fetch(it.proxy.url)).text()).toBe('page')
  expect(it.proxy.upgrades).toBe(0)
  it.proxy.mend()
  using again = await Talk.open(it.proxy.url)
  await again.says('hello')
})

test.each(['up', 'down'] as const)('frames swallowed %s: the handshake passes, nothing after it', async way => {
  await using it = await standing()
  using before = await Talk.open(it.proxy.url)
  await before.says('hello')
  it.proxy.swallow([way])
  using talk = await Talk.open(it.proxy.url)
  talk.socket.send('swallowed')
  before.socket.send('swallowed')
  // Another way to the server is open all the time, and shows that it had the time to answer.
  expect(await (await fetch(it.proxy.url)).text()).toBe('page')
  if (way === 'down') await eventually(() => expect(it.behind.heard).toEqual(['hello', 'swallowed', 'swallowed']))
  else expect(it.behind.heard).toEqual(['hello'])
  expect([talk.heard, before.heard]).toEqual([[], ['you said hello']])
  // What lost bytes is not to be trusted any more.
  await eventually(() => {
    it.proxy.mend()
    expect([talk.code, before.code]).toEqual([1006, 1006])
  })
  using again = await Talk.open(it.proxy.url)
  await again.says('hello')
})

test('responses buffered: what ends comes whole, what streams does not come', async () => {
  await using it = await standing()
  it.proxy.isBuffering = true
  const stream = new Reading(it.proxy.url, '/stream')
  await eventually(() => expect(it.behind.streams).toHaveLength(1))
  it.behind.streams[0]!.write('data: second\n\n')
  expect(await (await fetch(it.proxy.url)).text()).toBe('page')
  expect(stream.text).toBe('')
  it.behind.streams[0]!.end()
  await stream.has('data: second')
  using talk = await Talk.open(it.proxy.url)
  await talk.says('hello')
})

test('idle cut: who is silent is cut after so long, who talks is not', async () => {
  await using it = await standing()
  it.proxy.link.idleMs = 300
  using talk = await Talk.open(it.proxy.url)
  using silent = await Talk.open(it.proxy.url)
  const beganAt = performance.now()
  const talking = setInterval(() => talk.socket.send('hello'), 20)
  await eventually(() => expect(silent.code).toBe(1006))
  expect(performance.now() - beganAt).toBeGreaterThan(290)
  expect(talk.code).toBe(null)
  clearInterval(talking)
  await eventually(() => expect(talk.code).toBe(1006))
})

test('connections refused: nobody gets in, those who are in stay', async () => {
  await using it = await standing()
  using talk = await Talk.open(it.proxy.url)
  it.proxy.link.isRefusing = true
  await expect(fetch(it.proxy.url)).rejects.toThrow()
  using other = new Talk(it.proxy.url)
  await eventually(() => expect(other.code).toBe(1006))
  await talk.says('hello')
  it.proxy.mend()
  expect(await (await fetch(it.proxy.url)).text()).toBe('page')
})

test("a server that is gone is the proxy's 502", async () => {
  await using it = await standing()
  await it.behind[Symbol.asyncDispose]()
  expect((await fetch(it.proxy.url)).status).toBe(502)
})

test("Debian's nginx with its defaults lets no Upgrade through, and streams what says so", async () => {
  await using behind = await Behind.start()
  await using nginx = await startDebianNginx(behind.url)
  using talk = new Talk(nginx.url)
  await eventually(() => expect(talk.refused).not.toBe(null))
  const stream = new Reading(nginx.url, '/stream')
  await stream.has('data: first')
  behind.streams[0]!.write('data: second\n\n')
  await stream.has('data: second')
})
