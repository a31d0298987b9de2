import fc from 'fast-check'
import { expect, test } from 'vitest'
import { readEvents, type StreamEvent } from '../../src/cli/event-stream.ts'

async function read(bytes: Uint8Array, cuts: readonly number[] = [], maxEventLength = 1000): Promise<StreamEvent[]> {
  const edges = [0, ...cuts.map(cut => Math.min(cut, bytes.length)).sort((a, b) => a - b), bytes.length]
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (let i = 1; i < edges.length; i++) yield bytes.subarray(edges[i - 1], edges[i])
  }
  const events: StreamEvent[] = []
  for await (const event of readEvents(chunks(), { maxEventLength })) events.push(event)
  return events
}
const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text)

test.each<[string, string, StreamEvent[]]>([
  ['an event with its id', 'event: delta\nid: 7\ndata: {"a":1}\n\n', [{ event: 'delta', id: '7', data: '{"a":1}' }]],
  ['several lines of data', 'data: a\ndata:b\n\n', [{ event: 'message', id: '', data: 'a\nb' }]],
  ['comments and unknown fields', ': hi\nfoo: bar\ndata: a\n\n', [{ event: 'message', id: '', data: 'a' }]],
  [
    'an id that stays',
    'id: 1\ndata: a\n\ndata: b\n\n',
    [
      { event: 'message', id: '1', data: 'a' },
      { event: 'message', id: '1', data: 'b' },
    ],
  ],
  ['an event without data', 'event: delta\n\ndata: a\n\n', [{ event: 'message', id: '', data: 'a' }]],
  [
    'carriage returns',
    'data: a\r\n\r\ndata: b\r\rdata: c\n\n',
    [
      { event: 'message', id: '', data: 'a' },
      { event: 'message', id: '', data: 'b' },
      { event: 'message', id: '', data: 'c' },
    ],
  ],
  ['what the end cuts off', 'data: a\n\ndata: b\n', [{ event: 'message', id: '', data: 'a' }]],
])('%s', async (_, text, events) => {
  expect(await read(bytesOf(text))).toEqual(events)
})

test('any cut of the bytes reads alike', async () => {
  const bytes = bytesOf(
    'event: delta\r\nid: 1-ä\r\ndata: {"body":"žluťoučký 🐎"}\r\n\r\nretry: 5\ndata: b\n\ndata: c\r\rdata: d\n\n',
  )
  const whole = await read(bytes)
  expect(whole).toHaveLength(4)
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(bytes.length), { maxLength: 12 }), async cuts => {
      expect(await read(bytes, cuts)).toEqual(whole)
    }),
  )
})

test('the hint to come back is told', async () => {
  const hints: number[] = []
  const stream = [bytesOf('retry: 1500\nretry: soon\n\n')]
  const read = readEvents(
    (async function* () {
      yield* stream
    })(),
    { maxEventLength: 100, onRetry: ms => hints.push(ms) },
  )
  for await (const _ of read);
  expect(hints).toEqual([1500])
})

test('[P7] an event without an end is refused, not gathered', async () => {
  await expect(read(bytesOf(`data: ${'x'.repeat(2000)}`))).rejects.toThrow('longer than 1000')
  await expect(read(bytesOf('data: abcdefghi\n'.repeat(200)))).rejects.toThrow('longer than 1000')
})
