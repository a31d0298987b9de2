// An event stream of the server's frames, and POSTs of the client's: for where a proxy lets no WebSocket through.
import type { ClientFrame, ErrorEvent } from '../../protocol/messages.ts'
import { lossOf, post, Refused } from './http.ts'
import type { Loss, OpenTransport } from './transport.ts'
import { addressOf, broken, errorOfAll, frameOf, tell } from './wire.ts'

/** Characters after which a POST takes no frame more: a server takes four of the largest frames, of 64 KiB each. */
const maxLength = 32_768
/** Frames that may wait: past it, a way that takes nothing is taken for lost. */
const maxQueued = 10_000
/** A server that takes no frames now says when; else so long. */
const againMs = 1000
const goodbyeMs = 3000

export const openEventStream: OpenTransport = ({ url, token, listener }) => {
  const ending = new AbortController()
  const { signal } = ending
  const queue: string[] = []
  /** What the server calls it. */
  let name: string | undefined
  let seq = 0
  let isPosting = false
  let posted = Promise.resolve()
  let isOver = false
  let error: ErrorEvent | null = null
  let timer: ReturnType<typeof setTimeout> | undefined

  const lose = (loss: Loss): void => {
    if (isOver) return
    end()
    listener.onLost(loss)
  }
  const fail = (failure: unknown): void => lose(failure instanceof Refused ? failure.loss : lossOf(error))
  const end = (): void => {
    isOver = true
    clearTimeout(timer)
    ending.abort()
  }

  /** @param fields of the body beside the frames, and the number by which the server knows a second try */
  const say = (frames: string[], fields = ''): Promise<unknown> =>
    post({
      address: addressOf(url, `stream/${name}`),
      token,
      body: `{"seq":${seq},"frames":[${frames}]${fields}}`,
      signal,
      read: response => response.text(),
    })
  const sayUntilTaken = async (frames: string[]): Promise<void> => {
    for (let isAgain = false; !isOver; isAgain = true)
      try {
        await say(frames)
        return
      } catch (failure) {
        const error = failure instanceof Refused ? failure.error : null
        if (error === null && !isAgain) continue
        const isFinal = !error?.retry || error.code === 'STREAM_UNKNOWN' || /^TOKEN_/.test(error.code)
        if (isFinal) throw failure
        // Not now, or not this node: another one takes it perhaps. If it is the stream's own, the stream ends.
        await new Promise(resolve => {
          timer = setTimeout(resolve, error.retryAfterMs ?? againMs)
        })
      }
  }
  /** What is said in one go goes in one POST; without a timer, for which a page in the background waits a second, or a minute. */
  const flush = async (): Promise<void> => {
    isPosting = true
    try {
      await null
      while (queue.length > 0 && !isOver) {
        let count = 0
        for (let length = 0; count < queue.length && (count === 0 || length < maxLength); count++)
          length += queue[count]!.length
        seq++
        await sayUntilTaken(queue.splice(0, count))
      }
    } catch (failure) {
      fail(failure)
    }
    isPosting = false
  }

  post({
    address: addressOf(url, 'stream'),
    token,
    body: '{"frames":[]}',
    signal,
    timeoutMs: null,
    read: async response => {
      for await (const data of eventsOf(response.body!)) {
        const frame = isOver ? null : frameOf(data)
        if (frame === null) continue
        if (frame.type === 'welcome') name = frame.stream
        error = errorOfAll(frame, error)
        tell(listener, frame)
      }
    },
  }).then(fail, fail)
  return {
    name: 'sse',
    send(frame: ClientFrame) {
      if (isOver) return
      if (frame.type === 'auth') token = frame.token
      if (queue.push(JSON.stringify(frame)) > maxQueued) lose(broken)
      else if (!isPosting) posted = flush()
    },
    close(comesBack) {
      if (isOver) return
      if (comesBack || name === undefined) {
        end()
        return
      }
      // The server ends it when it knows that this client goes: one that is only cut may come back.
      isOver = true
      clearTimeout(timer)
      timer = setTimeout(end, goodbyeMs)
      posted
        .then(() => {
          seq++
          return say(queue, ',"close":true')
        })
        .then(end, end)
    },
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
