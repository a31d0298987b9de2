// What the configuration says about channels: an ordered list of patterns, each with what differs from the default. Whatever does
// not fit is refused with the entry and the field, so that nothing starts half-right.
import { z } from 'zod'
import { matchesTopic } from './topic-pattern.ts'

/** What holds for the topics of a pattern; what is left out is the default's. */
export interface ChannelEntry {
  readonly pattern: string
  readonly public?: boolean
  readonly history?: false | { readonly length: number; readonly ageMs: number }
  readonly presence?:
    | boolean
    | {
        readonly graceMs?: number
        readonly diffMs?: number
        readonly listUpTo?: number
        readonly maxMetaBytes?: number
        readonly boundToSubject?: boolean
      }
  readonly backpressure?: 'buffer' | 'drop-oldest' | 'latest'
  readonly bufferBytes?: number
  readonly rate?: { readonly perSecond: number; readonly burst: number }
  readonly maxPayloadBytes?: number
  readonly idempotencyMs?: number
}

const MiB = 1024 * 1024
const second = 1000
const day = 86_400_000
const maxEntries = 1000
const maxStars = 8

const units: Readonly<Record<string, number>> = { d: day, h: 3_600_000, m: 60 * second, s: second, ms: 1 }

/** Whatever is wrong with a value is said in one way: what fits. */
const fitting = <T>(type: string, schema: z.ZodType<T>): z.ZodType<T> =>
  z.unknown().transform((value, context) => {
    const parsed = schema.safeParse(value)
    if (parsed.success) return parsed.data
    context.issues.push({ code: 'custom', message: type, input: value })
    return z.NEVER
  })

/** A word that stands for itself, or an object whose own fields are named in refusals. */
const wordOr = <W extends boolean, T>(type: string, words: readonly W[], schema: z.ZodType<T>): z.ZodType<W | T> =>
  z.unknown().transform((value, context) => {
    if (words.includes(value as W)) return value as W
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      context.issues.push({ code: 'custom', message: type, input: value })
      return z.NEVER
    }
    const parsed = schema.safeParse(value)
    if (parsed.success) return parsed.data
    for (const issue of parsed.error.issues) context.issues.push({ ...issue, input: value } as z.core.$ZodRawIssue)
    return z.NEVER
  })

const integer = (min: number, max: number) => fitting(`a whole number from ${min} to ${max}`, z.int().min(min).max(max))
const yesOrNo = fitting('true or false', z.boolean())

/** `"24h"`, `"10m"`, `"90s"`, `"250ms"`, or milliseconds as a number. */
const duration = (min: number, max: number) =>
  fitting(
    `a duration from ${spoken(min)} to ${spoken(max)}, as "24h", "10m", "90s" or milliseconds`,
    z
      .union([z.int(), z.string().regex(/^\d{1,9}(ms|s|m|h|d)$/)])
      .transform(given => {
        if (typeof given === 'number') return given
        const unit = given.replace(/^\d+/, '')
        return Number.parseInt(given, 10) * units[unit]!
      })
      .refine(ms => ms >= min && ms <= max),
  )

function spoken(ms: number): string {
  const [name, length] = Object.entries(units).find(([, unit]) => ms >= unit && ms % unit === 0) ?? ['ms', 1]
  return ms === 0 ? '0' : `${ms / length}${name}`
}

const history = z
  .strictObject({
    length: integer(1, 100_000),
    // No timer of Node goes past 2^31 ms.
    age: duration(second, 7 * day),
  })
  .transform(({ length, age }) => ({ length, ageMs: age }))

const presence = z
  .strictObject({
    grace: duration(0, 600_000),
    diff: duration(0, 10_000),
    listUpTo: integer(0, 10_000),
    maxMetaBytes: integer(2, 65_536),
    boundToSubject: yesOrNo,
  })
  .partial()
  .transform(({ grace, diff, ...rest }) => ({ ...given({ graceMs: grace, diffMs: diff }), ...rest }))

const entry = z
  .strictObject({
    pattern: fitting(
      `a topic of 1 to 255 characters without control characters, in which * stands for any text, at most ${maxStars} times`,
      z
        .string()
        .min(1)
        .max(255)
        .regex(/^\P{Cc}+$/u)
        .refine(text => text.split('*').length <= maxStars + 1),
    ),
    public: yesOrNo.optional(),
    history: wordOr('false, or {"length": 100, "age": "24h"}', [false], history).optional(),
    presence: wordOr('true, false, or an object as {"grace": "10s"}', [true, false], presence).optional(),
    backpressure: fitting('one of buffer, drop-oldest, latest', z.enum(['buffer', 'drop-oldest', 'latest'])).optional(),
    bufferBytes: integer(1024, 64 * MiB).optional(),
    rate: wordOr(
      'an object as {"perSecond": 20, "burst": 60}',
      [],
      z.strictObject({
        perSecond: fitting('a number from 0.01 to 100000', z.number().min(0.01).max(100_000)),
        burst: integer(1, 100_000),
      }),
    ).optional(),
    maxPayloadBytes: integer(1, 16 * MiB).optional(),
    idempotency: duration(second, day).optional(),
  })
  .transform(({ idempotency, ...rest }) => ({ ...rest, ...given({ idempotencyMs: idempotency }) }))

/** Without the fields that are not there: they would hide the default's. */
const given = <T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as never

export type ParsedEntries =
  | { readonly entries: readonly ChannelEntry[]; readonly refusals?: never }
  | { readonly entries?: never; readonly refusals: readonly string[] }

/** Reads a JSON list of entries. @returns them, or what does not fit, a sentence each */
export function parseChannelEntries(text: string): ParsedEntries {
  let values: unknown
  try {
    values = JSON.parse(text)
  } catch (error) {
    return { refusals: [`it is not JSON: ${(error as Error).message}`] }
  }
  if (!Array.isArray(values)) return { refusals: ['it takes a list: [{"pattern": "room:*", ...}, ...]'] }
  if (values.length > maxEntries) return { refusals: [`it has ${values.length} entries; at most ${maxEntries} fit`] }
  const refusals: string[] = []
  const entries: ChannelEntry[] = []
  for (const [index, value] of values.entries()) {
    const name = nameOf(index, value)
    const parsed = wordOr('an object as {"pattern": "room:*", ...}', [], entry).safeParse(value)
    if (!parsed.success) refusals.push(...parsed.error.issues.map(issue => `${name}${refusalOf(issue, value)}`))
    else {
      const { pattern } = parsed.data
      const before = entries.find(earlier => matchesTopic(earlier.pattern, pattern))
      if (before !== undefined)
        refusals.push(`${name} is never used, since ${quote(before.pattern)} before it matches all its topics`)
      entries.push(given(parsed.data) as ChannelEntry)
    }
  }
  return refusals.length > 0 ? { refusals } : { entries }
}

function nameOf(index: number, value: unknown): string {
  const pattern = (value as { pattern?: unknown } | null)?.pattern
  return `entry ${index + 1}${typeof pattern === 'string' ? ` (${quote(pattern)})` : ''}`
}

function refusalOf(issue: z.core.$ZodIssue, value: unknown): string {
  const field = issue.path.join('.')
  if (issue.code === 'unrecognized_keys')
    return `${field && `: ${field}`} has an unknown field: ${issue.keys.join(', ')}`
  const found = issue.path.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown>)[key], value)
  if (found === undefined) return ` has no ${field}; it takes ${issue.message}`
  return `${field && `: ${field}`} is ${quote(found)}; it takes ${issue.message}`
}

/** A value as it was written, short enough for a line of a log. */
function quote(value: unknown): string {
  const text = JSON.stringify(value)
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}
