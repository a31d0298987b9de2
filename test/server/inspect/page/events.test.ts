import fc from 'fast-check'
import { expect, test } from 'vitest'
import { EventParser } from '../../../../src/server/inspect/page/events.js'

const text = [
  ':\n\n',
  'retry: 2000\n',
  'event: overview\ndata: {"a":1}\n\n',
  'id: 7\n\n',
  'event: delta\nid: 8\ndata: {"text":"line\\n\\nbreak, ü 🌊"}\n\n',
  'data: [1,\ndata: 2]\n\n',
].join('')
const events = [
  { event: 'overview', data: { a: 1 } },
  { event: 'delta', data: { text: 'line\n\nbreak, ü 🌊' } },
  { event: 'message', data: [1, 2] },
]

test('any split of the text gives the same events', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(text.length), { maxLength: 12 }), cuts => {
      const places = [0, ...cuts.sort((a, b) => a - b), text.length]
      const parser = new EventParser()
      const found = places.slice(1).flatMap((end, place) => parser.feed(text.slice(places[place], end)))
      expect(found).toEqual(events)
    }),
  )
})

test('[P7] an event that never ends is given up', () => {
  const parser = new EventParser()
  const chunk = 'x'.repeat(8 * 1024 * 1024)
  for (let chunks = 0; chunks < 4; chunks++) parser.feed(chunk)
  expect(() => parser.feed(chunk)).toThrow('larger than this page takes')
})

test('what is no JSON is no event of ours', () => {
  expect(() => new EventParser().feed('data: <html>\n\n')).toThrow(SyntaxError)
})
