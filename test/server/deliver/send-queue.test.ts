import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { expect, test, vi } from 'vitest'
import { websocketBytesOf } from '../../../src/server/deliver/encode.ts'
import { SendQueue, Turn } from '../../../src/server/deliver/send-queue.ts'
import { Batch } from '../../../src/server/route/batch.ts'
import { Outgoing } from '../../../src/server/subscribe/subscription.ts'
import { until } from './support/gateway.ts'

interface Pair extends AsyncDisposable {
  readonly server: Socket
  readonly client: Socket
  received(): string
}

async function connectPair(): Promise<Pair> {
  const listener = createServer().listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const client = connect((listener.address() as AddressInfo).port, '127.0.0.1')
  const [server] = (await once(listener, 'connection')) as [Socket]
  const parts: Buffer[] = []
  client.on('data', part => parts.push(part))
  return {
    server,
    client,
    received: () => Buffer.concat(parts).toString(),
    async [Symbol.asyncDispose]() {
      client.destroy()
      server.destroy()
      listener.close()
      await once(listener, 'close')
    },
  }
}

const queueOf = (socket: Socket, turn: Turn, maxBytes = 1000, onDrained = () => {}) =>
  new SendQueue({ turn, socket, maxBytes, bytesOf: websocketBytesOf, now: Date.now, onDrained })
const nextTurn = () => new Promise(resolve => setImmediate(resolve))

test('all frames of one turn go in one write; those of the next turn in another', async () => {
  await using pair = await connectPair()
  const write = vi.spyOn(pair.server, 'write')
  const queue = queueOf(pair.server, new Turn())
  for (const text of ['a', 'b', 'c']) queue.push(Buffer.from(text))
  await nextTurn()
  queue.push(Buffer.from('d'))
  await nextTurn()
  expect(write.mock.calls.map(([bytes]) => String(bytes))).toEqual(['abc', 'd'])
  await until(() => pair.received() === 'abcd')
})

test('sockets of one audience share the joined bytes; another list of frames does not', async () => {
  await using first = await connectPair()
  await using second = await connectPair()
  await using third = await connectPair()
  const turn = new Turn()
  const writes = [first, second, third].map(pair => vi.spyOn(pair.server, 'write'))
  const [a, b, c] = ['a', 'b', 'c'].map(text => Buffer.from(text)) as [Buffer, Buffer, Buffer]
  for (const pair of [first, second, third]) {
    const queue = queueOf(pair.server, turn)
    queue.push(a)
    queue.push(pair === third ? c : b)
  }
  await nextTurn()
  const [one, two, three] = writes.map(write => write.mock.calls[0]![0])
  expect(two).toBe(one)
  expect(String(three)).toBe('ac')
})

test('[P7] past its bound it says so, takes the frame all the same, and tells once when it is below half', async () => {
  await using pair = await connectPair()
  pair.client.pause()
  const drained = vi.fn()
  const queue = queueOf(pair.server, new Turn(), 100_000, drained)
  const frame = Buffer.alloc(40_000, 'x')
  let pushed = 0
  // Until the kernel takes no more.
  while (queue.stalledSince === null || !queue.isFull) {
    queue.push(frame)
    pushed += 1
    await nextTurn()
  }
  drained.mockClear()
  expect(queue.push(frame)).toBe(false)
  expect(queue.bytes).toBeGreaterThan(100_000)
  pair.client.resume()
  await until(() => drained.mock.calls.length > 0)
  expect(queue.bytes).toBeLessThanOrEqual(50_000)
  expect(queue.isFull).toBe(false)
  await until(() => pair.received().length === (pushed + 1) * frame.length)
  expect(drained).toHaveBeenCalledTimes(1)
  expect(queue.stalledSince).toBe(null)
})

test('what is held is written only when it is released', async () => {
  await using pair = await connectPair()
  const queue = queueOf(pair.server, new Turn())
  queue.hold()
  queue.push(Buffer.from('later'))
  await nextTurn()
  pair.server.write('first ')
  queue.release()
  await until(() => pair.received() === 'first later')
})

test('finishing hands over what waits and takes nothing more; stopping drops it', async () => {
  await using pair = await connectPair()
  const turn = new Turn()
  const queue = queueOf(pair.server, turn)
  queue.push(Buffer.from('a'))
  queue.finish()
  queue.push(Buffer.from('b'))
  const other = queueOf(pair.server, turn)
  other.push(Buffer.from('c'))
  other.stop()
  await nextTurn()
  pair.server.end('.')
  await once(pair.client, 'end')
  expect(pair.received()).toBe('a.')
})

test('the first batch of a turn is written at once, behind what waits; those that follow go in one write at its end', async () => {
  await using pair = await connectPair()
  const write = vi.spyOn(pair.server, 'write')
  const written = (): string[] => write.mock.calls.map(([bytes]) => String(bytes))
  const batchOf = (text: string): Batch => {
    const batch = new Batch({ query: { number: 1 }, tag: '', members: [] as never, toldLsn: 0n }, [], 1n)
    batch.websocketBytes = Buffer.from(text)
    return batch
  }
  const somebody = {}
  const queue = queueOf(pair.server, new Turn())
  queue.pushBatch(batchOf('a'), somebody)
  expect(written()).toEqual(['a'])
  queue.pushBatch(batchOf('b'), somebody)
  queue.pushBatch(batchOf('c'), somebody)
  expect(written()).toEqual(['a'])
  await nextTurn()
  expect(written()).toEqual(['a', 'bc'])
  queue.push(Buffer.from('d'))
  queue.pushBatch(batchOf('e'), somebody)
  expect(written()).toEqual(['a', 'bc'])
  await nextTurn()
  expect(written()).toEqual(['a', 'bc', 'de'])
  await until(() => pair.received() === 'abcde')
})

const deltaAt = (lsn: number): Outgoing =>
  new Outgoing('delta', '{}', { epoch: '1f2e3d4c', lsn: BigInt(lsn), index: 0xffff_ffff }, BigInt(lsn - 1))
const firmly = (of: object) => ({ of, isShared: false, manner: 'firmly' }) as const

/** Fills the kernel's buffers, so that what is pushed next waits. */
async function stall(queue: SendQueue): Promise<void> {
  const frame = Buffer.alloc(60_000, '.')
  for (let standing = 0; standing < 20; standing = queue.stalledSince === null ? 0 : standing + 1) {
    if (queue.stalledSince === null) queue.push(frame)
    await new Promise(resolve => setTimeout(resolve, standing === 0 ? 0 : 2))
  }
  for (let more = 0; more < 5; more++) queue.push(frame)
}

test('[P2] what waits behind a slow socket is taken back, all else of it goes on in order', async () => {
  await using pair = await connectPair()
  pair.client.pause()
  const drained = vi.fn()
  const queue = queueOf(pair.server, new Turn(), 1e6, drained)
  await stall(queue)
  const [ada, ben] = [{}, {}]
  const [first, second] = [deltaAt(1), deltaAt(2)]
  const before = queue.bytes
  queue.push(Buffer.from('a1'), ada, first)
  queue.push(Buffer.from('b1'), ben, first)
  queue.push(Buffer.from('beat'), null, 'heartbeat')
  queue.push(Buffer.from('a2'), ada, second)
  queue.push(Buffer.from('answer'))
  expect(queue.takeBack(firmly(ada))).toEqual(new Map([[ada, first]]))
  expect(queue.bytes).toBe(before + 'b1answer'.length)
  expect(queue.takeBack(firmly(ada)).size).toBe(0)
  await nextTurn()
  // It is not told that there is room before the peer takes something.
  expect(drained).not.toHaveBeenCalled()
  pair.client.resume()
  await until(() => drained.mock.calls.length > 0)
  queue.push(Buffer.from('.a1 again'), ada, first)
  await until(() => pair.received().endsWith('.b1answer.a1 again'))
  expect(drained).toHaveBeenCalledTimes(1)
})

test('[P4] of an event that is halfway in the socket the rest goes out too', async () => {
  await using pair = await connectPair()
  pair.client.pause()
  const queue = queueOf(pair.server, new Turn(), 1e9)
  const ada = {}
  // Larger than a slice: its lines go alone, and its id waits for the next.
  const lines = Buffer.alloc(70_000, 'e')
  let pushed = 0
  for (let standing = 0; standing < 20; standing = queue.stalledSince === null ? 0 : standing + 1) {
    if (standing === 0) {
      pushed += 1
      const event = deltaAt(pushed)
      queue.push(lines, ada, event)
      queue.push(Buffer.from(`id ${pushed}\n`), ada, event)
    }
    await new Promise(resolve => setTimeout(resolve, standing === 0 ? 0 : 2))
  }
  queue.push(Buffer.from('another'), ada, deltaAt(pushed + 1))
  const { sinceLsn } = queue.takeBack(firmly(ada)).get(ada)!
  // And not the second time either.
  queue.push(Buffer.from('yet another'), ada, deltaAt(pushed + 2))
  queue.takeBack(firmly(ada))
  queue.push(Buffer.from('end'))
  pair.client.resume()
  await until(() => pair.received().endsWith('end'))
  const whole = Array.from({ length: Number(sinceLsn) }, (_, i) => `${lines}id ${i + 1}\n`)
  expect(pair.received() === `${whole.join('')}end`).toBe(true)
})

test('what only waits for the end of the turn goes out instead of being taken back: its reader is not slow', async () => {
  await using pair = await connectPair()
  const queue = queueOf(pair.server, new Turn())
  const ada = {}
  queue.push(Buffer.from('a'), ada, deltaAt(1))
  expect(queue.takeBack(firmly(ada)).size).toBe(0)
  await until(() => pair.received() === 'a')
})

test('[P2] before the headers of a stream are written, what is held is taken back', async () => {
  await using pair = await connectPair()
  const drained = vi.fn()
  const queue = queueOf(pair.server, new Turn(), 1000, drained)
  queue.hold()
  const ada = {}
  const event = deltaAt(1)
  queue.push(Buffer.from('greeting'))
  queue.push(Buffer.from('a'), ada, event)
  expect(queue.takeBack(firmly(ada))).toEqual(new Map([[ada, event]]))
  expect(drained).not.toHaveBeenCalled()
  queue.release()
  expect(drained).toHaveBeenCalledTimes(1)
  await until(() => pair.received() === 'greeting')
})
