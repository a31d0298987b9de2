// Prints the events of a stream as lines: for people, and for programs.
import type { StreamEvent } from './event-stream.ts'
import { visibleLine } from './visible.ts'

/** One line of JSON for each event: `{"event":"delta","id":"...","data":{...}}`. */
export function jsonLines({ event, id, data }: StreamEvent): string[] {
  return [JSON.stringify({ event, id: id || null, data: JSON.parse(data) })]
}

type Row = Readonly<Record<string, unknown>>
interface EventData {
  readonly rows?: readonly Row[]
  readonly gone?: readonly Row[]
  readonly done?: boolean
  readonly changes?: readonly { readonly op: string; readonly key?: Row; readonly row?: Row; readonly set?: Row }[]
  readonly op?: string
  readonly key?: Row
  readonly new?: Row
  readonly old?: Row
  readonly code?: string
  readonly reason?: string
  readonly stale?: boolean
  readonly lagMs?: number
}

/** `=` a row that is there, `+` one that came, `~` one that changed, `-` one that left. */
export const textLines = (event: StreamEvent): string[] => linesOf(event).map(visibleLine)

function linesOf({ event, data }: StreamEvent): string[] {
  const body = JSON.parse(data) as EventData
  if (event === 'snapshot') {
    const rows = (body.rows ?? []).map(row => `= ${JSON.stringify(row)}`)
    const gone = (body.gone ?? []).map(key => `- ${JSON.stringify(key)}`)
    return [...gone, ...rows, ...(body.done ? ['= that is all; changes follow'] : [])]
  }
  if (event === 'delta') {
    return (body.changes ?? []).map(({ op, key, row, set }) => {
      if (op === 'insert') return `+ ${JSON.stringify(row)}`
      if (op === 'update') return `~ ${JSON.stringify(key)} ${JSON.stringify(set)}`
      return op === 'delete' ? `- ${JSON.stringify(key)}` : '- every row: the table was truncated'
    })
  }
  if (event === 'change') {
    if (body.op === 'insert') return [`+ ${JSON.stringify(body.new)}`]
    if (body.op === 'update') return [`~ ${JSON.stringify(body.old ?? body.key)} ${JSON.stringify(body.new)}`]
    return [body.op === 'delete' ? `- ${JSON.stringify(body.old ?? body.key)}` : '- every row: the table was truncated']
  }
  if (event === 'resync') return [`! start over: ${body.reason} (${body.code})`]
  if (event === 'heartbeat') return body.stale ? [`! the stream is ${body.lagMs} ms behind`] : []
  return [`? ${event} ${data}`]
}
