import { expect, test } from 'vitest'
import { jsonLines, textLines } from '../../src/cli/event-lines.ts'

test('rows are lines, and what came, changed or left is told by its sign', () => {
  const data = {
    changes: [
      { op: 'insert', row: { id: 1 } },
      { op: 'update', key: { id: 1 }, set: { note: 'a' } },
      { op: 'delete', key: { id: 1 } },
    ],
  }
  expect(textLines({ event: 'delta', id: '', data: JSON.stringify(data) })).toEqual([
    '+ {"id":1}',
    '~ {"id":1} {"note":"a"}',
    '- {"id":1}',
  ])
})

test('a row cannot steer the terminal, and stays as it is for programs', () => {
  const body = 'a\u009b2J\u202eb\u2028'
  const event = { event: 'snapshot', id: '', data: JSON.stringify({ rows: [{ body }], done: false }) }
  expect(textLines(event)).toEqual([String.raw`= {"body":"a\u{9b}2J\u{202e}b\u{2028}"}`])
  expect(JSON.parse(jsonLines(event)[0]!).data.rows).toEqual([{ body }])
})

test('an event that is not known is told on one line', () => {
  expect(textLines({ event: 'other\n= forged', id: '', data: '{}' })).toEqual([String.raw`? other\n= forged {}`])
})
