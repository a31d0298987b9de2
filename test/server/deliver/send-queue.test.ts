import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { expect, test, vi } from 'vitest'
import { websocketBytesOf } from '../../../src/server/deliver/encode.ts'
import { SendQueue, Turn } from '../../../src/server/deliver/send-queue.ts'
import { Batch } from '../../../src/server/route/batch.ts'
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
