// The published shape of what clients ask of channels: fields of frames, and of bodies over HTTP.
import { z } from 'zod'
import type { Json } from '../../protocol/messages.ts'

/** Payloads nested deeper are refused: whoever parses or writes them by recursion gives up somewhere below. */
const maxDepth = 64

const isNestedDeeper = (value: unknown, depth: number): boolean =>
  typeof value === 'object' &&
  value !== null &&
  (depth === 0 || Object.values(value).some(item => isNestedDeeper(item, depth - 1)))

// It was parsed from JSON: looking into it again would cost more than sending it.
const payload = z
  .unknown()
  .refine(value => !isNestedDeeper(value, maxDepth), `nested deeper than ${maxDepth}`) as unknown as z.ZodType<Json>

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
