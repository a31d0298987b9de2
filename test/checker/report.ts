// A failure told so that it can be understood: what the reader was told, and what happened.
import type { Subscriber } from './subscriber.ts'
import type { Truth } from './truth.ts'
import type { Untrue } from './untrue.ts'

export function report(reader: Subscriber, untrue: Untrue, truth: Truth): string {
  const { name, transport, kind, query, user } = reader.options
  const told = reader.history.filter(
    (line, i) =>
      i > reader.history.length - 12 ||
      /^\d+ --/.test(line) ||
      /^\d+ FAILED/.test(line) ||
      line.includes(`-${untrue.lsn.toString(16)}`) ||
      / (resync|snapshot) /.test(line) ||
      (untrue.row !== null && keyTexts(untrue.row).every(text => line.includes(text))),
  )
  const story = untrue.row === null ? [] : truth.story(query, user, untrue.row)
  const around = untrue.row === null ? truth.between(untrue.lsn - 2000n, untrue.lsn + 2000n).slice(0, 8) : []
  const events = query.events === undefined ? '' : ` events ${query.events}`
  return [
    `${name} (${transport} ${kind} ${query.table}?${query.filter} select ${query.select ?? '*'}${events} as ${user}): ${untrue.message}, at ${untrue.lsn.toString(16)}`,
    'what it was told:',
    ...told.slice(-60).map(line => `  ${line}`),
    'what happened:',
    ...story.slice(-60).map(line => `  ${line}`),
    ...around.map(
      ({ lsn, size, bytes, touched }) =>
        `  ${lsn.toString(16)} ${size} changes (${bytes} bytes) of ${[...touched.keys()].join(', ')}`,
    ),
  ].join('\n')
}

/** As the key stands in an event. */
const keyTexts = (name: string): string[] => {
  const values = JSON.parse(name) as unknown[]
  return values.length === 1 ? [`"id":${values[0]}`] : [`"room_id":${values[0]}`]
}
