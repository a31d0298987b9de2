// The bodies that hold a client's frames: of streams and of polls. Pure.
import { z } from 'zod'
import type { ClientFrame } from '../../protocol/messages.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { clientFrameSchema } from './frame-schema.ts'
import { parseShape } from './parse-shape.ts'

/** A body may be as large as so many of the largest frames. */
export const framesOfBody = 4

const frames = z.array(clientFrameSchema)

/** What opens a stream. */
export const openingSchema = z.strictObject({ frames })

/** What is sent to one. `close`: its client goes. */
export const postingSchema = z.strictObject({
  seq: z.int().min(1).max(Number.MAX_SAFE_INTEGER),
  frames,
  close: z.literal(true).optional(),
})

/** What a poll asks: the frames that enter everything from where it stands. `wait` in seconds; `poll` and `here` as the answer before had them. */
export const pollingSchema = z.strictObject({
  frames,
  wait: z.number().min(0).max(999_999).optional(),
  poll: z.string().min(1).max(255).optional(),
  here: z.string().max(16_384).optional(),
})

export interface Polling extends Opening {
  readonly wait?: number
  readonly poll?: string
  readonly here?: string
}

export interface Opening {
  readonly frames: readonly ClientFrame[]
}

export interface Posting extends Opening {
  readonly seq: number
  readonly close?: true
}

/** @throws BAD_FRAME, FRAME_TOO_LARGE */
export const openingOf = (body: string, maxFrameBytes: number): Opening =>
  bodyOf<Opening>(body, openingSchema, maxFrameBytes)

/** @throws BAD_FRAME, FRAME_TOO_LARGE */
export const postingOf = (body: string, maxFrameBytes: number): Posting =>
  bodyOf<Posting>(body, postingSchema, maxFrameBytes)

/** @throws BAD_FRAME, FRAME_TOO_LARGE */
export function pollingOf(body: string, maxFrameBytes: number): Polling {
  const polling = bodyOf<Polling>(body, pollingSchema, maxFrameBytes)
  const ids = new Set<number>()
  for (const frame of polling.frames) {
    if (frame.type === 'wait') continue
    if (frame.type !== 'subscribe' && frame.type !== 'join')
      throw new TidegateError('BAD_FRAME', `a poll holds subscribe, join and wait frames, not ${frame.type}`)
    if (ids.has(frame.id)) throw new TidegateError('BAD_FRAME', `two frames of the poll have the id ${frame.id}`)
    ids.add(frame.id)
  }
  return polling
}

// zod types an optional field as possibly undefined; parsed from JSON it is there or it is not.
function bodyOf<T extends Opening>(body: string, schema: z.ZodType, maxFrameBytes: number): T {
  const parsed = parseShape(body, schema, 'the body') as T
  if (body.length > maxFrameBytes / 4) for (const frame of parsed.frames) refuseTooLarge(frame, maxFrameBytes)
  return parsed
}

function refuseTooLarge(frame: ClientFrame, maxFrameBytes: number): void {
  const bytes = Buffer.byteLength(JSON.stringify(frame))
  if (bytes <= maxFrameBytes) return
  throw new TidegateError('FRAME_TOO_LARGE', `a ${frame.type} frame has ${bytes} bytes; it may have ${maxFrameBytes}`)
}
