// Bytes for a wire, made once for everybody who receives them.
import { formatPosition, formatQueryPositions } from '../../protocol/position.ts'
import type { Batch, Outgoing } from '../subscribe/subscription.ts'
import type { Encoding } from './carrier.ts'

/** A whole, unmasked WebSocket text frame (RFC 6455, section 5.2), ready for `socket.write`. */
export function textFrame(text: string): Buffer {
  const length = Buffer.byteLength(text)
  const frame = Buffer.allocUnsafe(headSize(length) + length)
  frame.write(text, writeHead(frame, finText, length))
  return frame
}

/** The same of bytes. */
export function binaryFrame(bytes: Uint8Array): Buffer {
  const { length } = bytes
  const frame = Buffer.allocUnsafe(headSize(length) + length)
  frame.set(bytes, writeHead(frame, finBinary, length))
  return frame
}

const finText = 0x81
const finBinary = 0x82

const headSize = (length: number): number => (length < 126 ? 2 : length < 65536 ? 4 : 10)

/** @returns where the payload begins */
function writeHead(frame: Buffer, first: number, length: number): number {
  frame[0] = first
  if (length < 126) {
    frame[1] = length
    return 2
  }
  if (length < 65536) {
    frame[1] = 126
    return frame.writeUInt16BE(length, 2)
  }
  frame[1] = 127
  frame.writeUInt32BE(Math.floor(length / 0x1_0000_0000), 2)
  return frame.writeUInt32BE(length >>> 0, 6)
}

/** The frame of an event. Deltas and changes name the shared query, what a channel tells names the channel, so one Buffer serves
 *  its whole audience; a snapshot names the subscription that asked for it, and is made for it alone. */
export function websocketFrameOf(outgoing: Outgoing, query: number, id: number): Buffer {
  if (outgoing.event === 'snapshot') return textFrame(frameText(outgoing, addressOf(outgoing, query, id)))
  outgoing.websocketFrame ??= textFrame(frameText(outgoing, addressOf(outgoing, query, id)))
  return outgoing.websocketFrame
}

/** The frames of a batch, one after the other. */
export function websocketBytesOf(batch: Batch): Buffer {
  batch.websocketBytes ??= joined(batch.events.map(event => websocketFrameOf(event, batch.audience.query.number, 0)))
  return batch.websocketBytes
}

export const websocketEncoding: Encoding = {
  frame: frame => textFrame(JSON.stringify(frame)),
  event: websocketFrameOf,
  batch: websocketBytesOf,
}

/** The same frames as the `data:` lines of an event stream. */
export const streamEncoding: Encoding = {
  frame: frame => dataLine(JSON.stringify(frame)),
  event: streamFrameOf,
  batch: streamBytesOf,
}

/** As text, for an answer that holds several. */
export const textEncoding: Encoding = {
  frame: frame => Buffer.from(JSON.stringify(frame)),
  event: (outgoing, query, id) => Buffer.from(frameText(outgoing, addressOf(outgoing, query, id))),
  batch: batch => joined(batch.events.map(event => textEncoding.event(event, batch.audience.query.number, 0))),
}

function streamFrameOf(outgoing: Outgoing, query: number, id: number): Buffer {
  if (outgoing.event === 'snapshot') return dataLine(frameText(outgoing, addressOf(outgoing, query, id)))
  outgoing.streamFrame ??= dataLine(frameText(outgoing, addressOf(outgoing, query, id)))
  return outgoing.streamFrame
}

function streamBytesOf(batch: Batch): Buffer {
  batch.streamBytes ??= joined(batch.events.map(event => streamFrameOf(event, batch.audience.query.number, 0)))
  return batch.streamBytes
}

const dataLine = (text: string): Buffer => Buffer.from(`data: ${text}\n\n`)

const isOfChannel = ({ event }: Outgoing): boolean => event === 'message' || event === 'presence' || event === 'gap'

const joined = (buffers: readonly Buffer[]): Buffer => (buffers.length === 1 ? buffers[0]! : Buffer.concat(buffers))

function addressOf(outgoing: Outgoing, query: number, id: number): string {
  if (outgoing.event === 'snapshot') return `"id":${id}`
  return `"${isOfChannel(outgoing) ? 'channel' : 'query'}":${query}`
}

function frameText(outgoing: Outgoing, address: string): string {
  const position = outgoing.position === null ? '' : `"position":"${formatPosition(outgoing.position)}",`
  return `{"type":"${outgoing.event}",${address},${position}${outgoing.json.slice(1)}`
}

/** The `event` and `data` lines of an event, without the `id` line and the blank line that end it: those differ by
 *  receiver. One Buffer for all. */
export function sseLinesOf(outgoing: Outgoing): Buffer {
  outgoing.sseChunk ??= Buffer.from(`event: ${outgoing.event}\ndata: ${outgoing.json}\n`)
  return outgoing.sseChunk
}

/** The whole events of a batch, for streams of this one query. */
export function sseBytesOf(batch: Batch): Buffer {
  const { tag } = batch.audience
  batch.sseBytes ??= joined(batch.events.flatMap(event => [sseLinesOf(event), sseEndOf(event, tag)]))
  return batch.sseBytes
}

const sseEndOf = ({ position }: Outgoing, tag: string): Buffer =>
  position === null ? sseEnd : sseIdLine(formatQueryPositions([{ ...position, tag }]))

/** The same lines for a stream of several, `"q"` or `"c"` spliced in front of the shared bytes. */
export function sseNumberedLinesOf(outgoing: Outgoing, number: number): [Buffer, Buffer] {
  const head = `event: ${outgoing.event}\ndata: {`
  return [
    Buffer.from(`${head}"${isOfChannel(outgoing) ? 'c' : 'q'}":${number},`),
    sseLinesOf(outgoing).subarray(head.length),
  ]
}

/** A whole event of the stream itself. */
export function sseEvent(event: string, data: object, id: string | null): Buffer {
  const idLine = id === null ? '' : `id: ${id}\n`
  return Buffer.from(`event: ${event}\ndata: ${JSON.stringify(data)}\n${idLine}\n`)
}

export const sseEnd = Buffer.from('\n')

/** The line that ends an event: `id` where the stream stands after it. Readers of one query with the same tag follow
 *  each other, so the last line is kept: one entry. */
export function sseIdLine(id: string): Buffer {
  if (id !== lastId.text) lastId = { text: id, line: Buffer.from(`id: ${id}\n\n`) }
  return lastId.line
}

let lastId = { text: '', line: Buffer.alloc(0) }
