// An event stream of the server's frames, and POSTs of the client's: for where a proxy lets no WebSocket through.
import type { ClientFrame, ErrorEvent, ServerFrame } from '../../protocol/messages.ts'
import { addressOf, broken, errorOfAll, frameOf, lossOf, post, Refused } from './http.ts'
import type { Loss, OpenTransport } from './transport.ts'

/** Frames of so many milliseconds go in one POST. */
const tickMs = 5
/** What one POST holds, and what may wait in all: past it, a way that takes nothing is taken for lost. */
const maxFrames = 100
const maxQueued = 10_000

export const openEventStream: OpenTransport = ({ url, token, listener }) => {
  const ending = new AbortController()
  const { signal } = ending
  let queue: ClientFrame[] = []
  let connection: string | null = null
  let seq = 0
  let isPosting = false
  let error: ErrorEvent | null = null
  let timer: ReturnType<typeof setTimeout> | undefined

  const lose = (loss: Loss): void => {
    if (signal.aborted) return
    end()
    listener.onLost(loss)
  }
  const end = (): void => {
    clearTimeout(timer)
    queue = []
    ending.abort()
  }
  const take = (frame: ServerFrame): void => {
    if (signal.aborted) return
    if (frame.type === 'welcome') connection = frame.connection
    error = errorOfAll(frame, error)
    listener.onFrame(frame)
  }

  const fail = (failure: unknown): void => lose(failure instanceof Refused ? failure.loss : lossOf(error))

  const say = async (frames: ClientFrame[]): Promise<void> => {
    // The number tells the server a second try from another frame of the same words.
    const request = { address: addressOf(url, `stream/${connection}`), token, body: { seq: seq++, frames }, signal }
    const read = (response: Response): Promise<unknown> => response.text()
    await post({ ...request, read }).catch(failure => {
      if (failure instanceof Refused || signal.aborted) throw failure
      return post({ ...request, read })
    })
  }
  const flush = async (): Promise<void> => {
    timer = undefined
    isPosting = true
    try {
      while (queue.length > 0) await say(queue.splice(0, maxFrames))
    } catch (failure) {
      fail(failure)
    }
    isPosting = false
  }

  post({
    address: addressOf(url, 'stream'),
    token,
    body: { frames: [] },
    signal,
    timeoutMs: null,
    read: async response => {
      for await (const data of eventsOf(response.body!)) {
        const frame = frameOf(data)
        if (frame !== null) take(frame)
      }
    },
  }).then(fail, fail)
  return {
    name: 'sse',
    send(frame) {
      if (signal.aborted) return
      if (frame.type === 'auth') token = frame.token
      if (queue.push(frame) > maxQueued) lose(broken)
      else if (!isPosting) timer ??= setTimeout(flush, tickMs)
    },
    close: end,
  }
}

/** The data of each event, however the bytes were split on their way. Lines end with LF or CRLF; an event without its empty line
 *  is none. */
export async function* eventsOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader()
  const decoder = new TextDecoder()
  let rest = ''
  let data: string[] = []
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    // Only what is new is searched: a snapshot's line may come in a thousand pieces.
    const lines = decoder.decode(value, { stream: true }).split('\n')
    lines[0] = rest + lines[0]
    rest = lines.pop()!
    for (const line of lines) {
      const text = line.replace(/\r$/, '')
      if (text.startsWith('data:')) data.push(text.slice(text[5] === ' ' ? 6 : 5))
      else if (text === '' && data.length > 0) {
        yield data.join('\n')
        data = []
      }
    }
  }
}
