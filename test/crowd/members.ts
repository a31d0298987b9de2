// Connections that enter and leave channels, many in a process of its own, over raw TCP with one read buffer for all.
import { connect, type Socket } from 'node:net'
import { answer } from './child.ts'

const buffer = Buffer.allocUnsafeSlow(256 * 1024)
let connections: Connection[] = []
const faults: string[] = []
let wake: () => void = () => {}

class Connection {
  readonly #socket: Socket
  #rest: Buffer | null = null
  isOpen = false
  /** Ids of channels that it is in. */
  readonly joined = new Set<number>()
  /** Answers that it waits for. */
  owed = 0
  messages = 0

  constructor(port: number, token: string) {
    const callback = (length: number): boolean => this.#take(length)
    this.#socket = connect({ port, host: '127.0.0.1', onread: { buffer, callback } })
    this.#socket.setNoDelay(true)
    this.#socket.on('error', () => {})
    this.#socket.write(
      `GET /v1/socket HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        `Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer ${token}\r\n\r\n`,
    )
  }

  /** A masked text frame, its mask zero. @param answers how many frames answer it */
  say(frame: object, answers: number): void {
    this.owed += answers
    const body = Buffer.from(JSON.stringify(frame))
    const head = body.length < 126 ? [0x81, 0x80 | body.length] : [0x81, 0xfe, body.length >> 8, body.length & 0xff]
    this.#socket.write(Buffer.concat([Buffer.from([...head, 0, 0, 0, 0]), body]))
  }

  cut(): void {
    this.#socket.resetAndDestroy()
  }

  #take(length: number): boolean {
    let bytes = buffer.subarray(0, length)
    if (this.#rest !== null) bytes = Buffer.concat([this.#rest, bytes])
    let at = 0
    for (let end = this.#message(bytes, at); end > 0; end = this.#message(bytes, at)) at = end
    this.#rest = at === bytes.length ? null : Buffer.from(bytes.subarray(at))
    return true
  }

  /** @returns where the message that begins at `at` ends; 0 when it is not whole */
  #message(bytes: Buffer, at: number): number {
    if (!this.isOpen) {
      const end = bytes.indexOf('\r\n\r\n', at)
      if (end < 0) return 0
      const head = bytes.toString('latin1', at, end)
      if (!head.startsWith('HTTP/1.1 101')) faults.push(`refused: ${head.split('\r\n')[0]}`)
      this.isOpen = true
      wake()
      return end + 4
    }
    if (bytes.length < at + 2) return 0
    const short = bytes[at + 1]!
    const head = short < 126 ? 2 : short === 126 ? 4 : 10
    if (bytes.length < at + head) return 0
    const size =
      short < 126 ? short : short === 126 ? bytes.readUInt16BE(at + 2) : Number(bytes.readBigUInt64BE(at + 2))
    const end = at + head + size
    if (bytes.length < end) return 0
    if ((bytes[at]! & 15) === 1) this.#frame(bytes.toString('utf8', at + head, end))
    return end
  }

  #frame(text: string): void {
    const frame = JSON.parse(text) as { type: string; id: number }
    if (frame.type === 'joined') this.joined.add(frame.id)
    else if (frame.type === 'unsubscribed') this.joined.delete(frame.id)
    else if (frame.type === 'message') this.messages += 1
    else if (frame.type === 'error' || frame.type === 'resync' || frame.type === 'gap') faults.push(text)
    if (frame.type === 'joined' || frame.type === 'unsubscribed' || frame.type === 'sent') this.owed -= 1
    wake()
  }
}

async function until(condition: () => boolean, what: () => string, timeoutMs = 90_000): Promise<void> {
  const deadline = Date.now() + timeoutMs
  while (!condition()) {
    if (Date.now() > deadline || faults.length > 0) throw new Error(`${what()}; ${faults.slice(0, 5).join()}`)
    let timer: NodeJS.Timeout | undefined
    await Promise.race([
      new Promise<void>(resolve => (wake = resolve)),
      new Promise(resolve => (timer = setTimeout(resolve, 20))),
    ])
    clearTimeout(timer)
  }
}

const answered = (): Promise<void> =>
  until(
    () => connections.every(({ owed }) => owed === 0),
    () => `${connections.filter(({ owed }) => owed > 0).length} wait for an answer`,
  )

const answers = {
  /** Opens one connection for each token. */
  async connect({ port, tokens }: { port: number; tokens: readonly string[] }) {
    for (let from = 0; from < tokens.length; from += 200) {
      const batch = tokens.slice(from, from + 200).map(token => new Connection(port, token))
      connections.push(...batch)
      await until(
        () => batch.every(({ isOpen }) => isOpen),
        () => 'not all are connected',
      )
    }
  },
  /** Connection by connection, enters these channels, one after the other taken from the list, again from its start at its end.
   *  Ids count up from 1. */
  async join({ topics, each, more = {} }: { topics: readonly string[]; each: number; more?: object }) {
    let at = 0
    for (const [place, connection] of connections.entries()) {
      for (let id = 1; id <= each; id++, at++)
        connection.say({ type: 'join', id, topic: topics[at % topics.length], ...more }, 1)
      if (place % 200 === 199) await answered()
    }
    await answered()
  },
  /** Leaves every channel. */
  async leave() {
    for (const connection of connections)
      for (const id of connection.joined) connection.say({ type: 'unsubscribe', id }, 1)
    await answered()
  },
  /** The first connection enters one more channel. @returns the code of its refusal */
  async oneMore({ topic }: { topic: string }) {
    connections[0]!.say({ type: 'join', id: 1_000_000, topic, private: false }, 0)
    await until(
      () => faults.length > 0,
      () => 'not refused',
    ).catch(() => {})
    return (JSON.parse(faults.pop()!) as { code: string }).code
  },
  /** The first connection says something in its first channel. @returns how many got it */
  async send({ payload }: { payload: unknown }) {
    connections[0]!.say({ type: 'send', id: 1, ref: 1, event: 'e', payload }, 1)
    await answered()
  },
  /** Resolves when so many messages have come in all. */
  async received({ messages }: { messages: number }) {
    const count = (): number => connections.reduce((sum, connection) => sum + connection.messages, 0)
    await until(
      () => count() >= messages,
      () => `${count()} of ${messages} messages`,
    )
  },
  cut() {
    for (const connection of connections) connection.cut()
    connections = []
  },
  faults: () => faults,
}
export type MemberAnswers = typeof answers

answer(answers)
