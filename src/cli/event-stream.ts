// Reads Server-Sent Events out of a response, however its bytes are cut.
// Source: HTML Living Standard, 9.2.6 Interpreting an event stream.

export interface StreamEvent {
  readonly event: string
  readonly data: string
  /** The last id the stream gave, also when this event brought none; empty before the first. */
  readonly id: string
}

export interface EventStream {
  /** @param onRetry the server's hint how long to wait before coming back, in milliseconds
   *  @throws when a single event passes `maxBytes` */
  readonly onRetry?: (retryMs: number) => void
  /** UTF-16 units one event may hold before its blank line comes. */
  readonly maxEventLength: number
}

/** An event that the stream's end cuts off is dropped, as the standard says. */
export async function* readEvents(
  chunks: AsyncIterable<Uint8Array>,
  { onRetry, maxEventLength }: EventStream,
): AsyncGenerator<StreamEvent> {
  const decoder = new TextDecoder()
  let text = ''
  let event = ''
  let data: string[] = []
  let id = ''
  let eventLength = 0
  for await (const chunk of chunks) {
    text += decoder.decode(chunk, { stream: true })
    // A \r at the end may be half of a \r\n: it waits for the next chunk.
    const lines = text.split(/\r\n|\n|\r(?!$)/)
    text = lines.pop() ?? ''
    if (eventLength + text.length > maxEventLength) throw new Error(`an event is longer than ${maxEventLength}`)
    for (const line of lines) {
      eventLength += line.length
      if (eventLength > maxEventLength) throw new Error(`an event is longer than ${maxEventLength}`)
      if (line === '') {
        if (data.length > 0) yield { event: event || 'message', data: data.join('\n'), id }
        event = ''
        data = []
        eventLength = 0
        continue
      }
      const [field, value] = fieldOf(line)
      if (field === 'event') event = value
      else if (field === 'data') data.push(value)
      else if (field === 'id' && !value.includes('\0')) id = value
      else if (field === 'retry' && /^\d{1,9}$/.test(value)) onRetry?.(Number(value))
    }
  }
}

function fieldOf(line: string): [field: string, value: string] {
  const colon = line.indexOf(':')
  if (colon === -1) return [line, '']
  return [line.slice(0, colon), line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1)]
}
