// Reads JSON text of a published shape. Pure.
import type { z } from 'zod'
import { TidegateError } from '../../protocol/tidegate-error.ts'

/** @param what `the frame`, `the body`. @throws BAD_FRAME that says where it does not fit */
export function parseShape<T extends z.ZodType>(text: string, schema: T, what: string): z.output<T> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new TidegateError('BAD_FRAME', `${what} is not JSON`, { cause })
  }
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const [issue] = result.error.issues
  const where = issue?.path.length ? ` at ${issue.path.join('.').slice(0, 60)}` : ''
  throw new TidegateError('BAD_FRAME', `${what} has not the published shape${where}: ${issue?.message.slice(0, 200)}`)
}
