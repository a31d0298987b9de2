import type { Writable } from 'node:stream'
import { expect, test } from 'vitest'
import * as ws from 'ws'
import {
  binaryFrame,
  sseLinesOf,
  sseNumberedLinesOf,
  textFrame,
  websocketFrameOf,
} from '../../../src/server/deliver/encode.ts'
import { Outgoing } from '../../../src/server/subscribe/subscription.ts'
import { at } from './support/memory-core.ts'

// Exported by ws, left out of its types: the very parser that clients on Node use.
const { Receiver } = ws as unknown as { Receiver: new (options: { isServer: boolean }) => Writable }

const sizes = [0, 1, 125, 126, 127, 65_535, 65_536, 300_000]

test.each(sizes)('a text frame of %i bytes is read back by ws, also in a row with others', async size => {
  const text = 'x'.repeat(size)
  const read: string[] = []
  const receiver = new Receiver({ isServer: false })
  receiver.on('message', (data: Buffer) => read.push(data.toString()))
  receiver.write(Buffer.concat([textFrame(text), textFrame('é'.repeat(70)), textFrame(text)]))
  expect(read).toEqual([text, 'é'.repeat(70), text])
})

test.each(sizes)('a binary frame of %i bytes is read back by ws, also in a row with others', async size => {
  const bytes = Buffer.alloc(size, 0xc3)
  const read: [Buffer, boolean][] = []
  const receiver = new Receiver({ isServer: false })
  receiver.on('message', (data: Buffer, isBinary: boolean) => read.push([data, isBinary]))
  receiver.write(Buffer.concat([binaryFrame(bytes), textFrame('é'), binaryFrame(bytes)]))
  expect(read).toEqual([
    [bytes, true],
    [Buffer.from('é'), false],
    [bytes, true],
  ])
})

test('an event is encoded once for each wire, and its object is spliced, not parsed', () => {
  const delta = new Outgoing('delta', '{"changes":[],"done":true}', at(0x10))
  const frame = websocketFrameOf(delta, 7, 1)
  expect(frame.subarray(2).toString()).toBe(
    '{"type":"delta","query":7,"position":"1f2e3d4c-10","changes":[],"done":true}',
  )
  expect(websocketFrameOf(delta, 7, 2)).toBe(frame)
  expect(sseLinesOf(delta).toString()).toBe('event: delta\ndata: {"changes":[],"done":true}\n')
  const [head, rest] = sseNumberedLinesOf(delta, 3)
  expect(head.toString() + rest.toString()).toBe('event: delta\ndata: {"q":3,"changes":[],"done":true}\n')
  expect(rest.buffer).toBe(sseLinesOf(delta).buffer)
})

test('a snapshot names the subscription that asked, and a part that is not the last has no position', () => {
  const part = new Outgoing('snapshot', '{"rows":[],"done":false}', null)
  const text = (id: number) => websocketFrameOf(part, 7, id).subarray(2).toString()
  expect(text(1)).toBe('{"type":"snapshot","id":1,"rows":[],"done":false}')
  expect(text(2)).toBe('{"type":"snapshot","id":2,"rows":[],"done":false}')
})
