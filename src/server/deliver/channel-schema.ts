// The published shape of what clients ask of channels: fields of frames, and of bodies over HTTP.
import { z } from 'zod'
import type { Json } from '../../protocol/messages.ts'

/** Payloads nested deeper are refused: whoever parses or writes them by recursion gives up somewhere below. */
const maxDepth = 64

/** What is wrong with it, or null. A number past the largest is parsed as Infinity, which JSON has no word for: it would go on as null. */
function faultOf(value: unknown, depth: number): string | null {
  if (typeof value === 'number') return Number.isFinite(value) ? null : 'a number that no double holds'
  if (typeof value !== 'object' || value === null) return null
  if (depth === 0) return `nested deeper than ${maxDepth}`
  for (const item of Object.values(value)) {
    const fault = faultOf(item, depth - 1)
    if (fault !== null) return fault
  }
  return null
}

// It was parsed from JSON: looking into it by a schema would cost more than sending it.
const payload = z.unknown().superRefine((value, context) => {
  const fault = faultOf(value, maxDepth)
  if (fault !== null) context.addIssue({ code: 'custom', message: fault })
}) as unknown as z.ZodType<Json>

/** Messages of a history that are asked for at once. */
export const maxLast = 10_000

const name = z.string().min(1).max(255)

export const trackShape = { meta: payload, key: name.optional() } as const

export const sendShape = {
  event: name,
  payload: payload.optional(),
  binary: z.base64().optional(),
  to: z.union([z.strictObject({ user: name }), z.strictObject({ connection: name })]).optional(),
  idempotencyKey: name.optional(),
  after: z.string().optional(),
} as const

/** `topic` is looked at by the door of channels, which knows what is one. */
export const joinShape = {
  topic: z.string(),
  private: z.boolean().optional(),
  self: z.boolean().optional(),
  presence: z.boolean().optional(),
  track: z.strictObject(trackShape).optional(),
  since: z.string().optional(),
  last: z.int().min(1).max(maxLast).optional(),
} as const
