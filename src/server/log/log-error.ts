// What of an error may stand in a log. Postgres quotes values of rows, JSON.parse quotes its text, clients of Redis hang the command
// with all its arguments onto the error: so only what is known to be harmless is taken.

export interface LoggedError {
  readonly type: string
  readonly message: string
  readonly code?: string
  /** Where it was thrown, without the message. */
  readonly stack?: string
  readonly cause?: LoggedError
}

/** @param value whatever was thrown */
export const errorForLog = (value: unknown): LoggedError => describe(value, maxCauses)

const maxCauses = 4

function describe(value: unknown, causesLeft: number): LoggedError {
  if (!(value instanceof Error)) return { type: typeof value, message: 'not an Error' }
  const { name, stack, cause } = value
  const code = 'code' in value && typeof value.code === 'string' ? value.code : undefined
  const at = stack?.split('\n').filter(line => /^\s+at /.test(line))
  return {
    type: name,
    message: messageOf(value, code),
    ...(code === undefined ? {} : { code }),
    ...(at === undefined || at.length === 0 ? {} : { stack: at.join('\n') }),
    ...(cause === undefined || causesLeft === 0 ? {} : { cause: describe(cause, causesLeft - 1) }),
  }
}

/** Classes of SQLSTATE whose messages name roles, relations and limits, and never a value.
 *  Source: PostgreSQL manual, Appendix A */
const harmlessStates = /^(08|0A|25|26|28|3D|3F|40|42|53|54|55|57|58)[0-9A-Z]{3}$/

function messageOf(error: Error, code: string | undefined): string {
  // Of Postgres: `severity` is of no other.
  if ('severity' in error && !harmlessStates.test(code ?? '')) return `Postgres says ${code}`
  if (error instanceof SyntaxError) return 'a text does not parse'
  // Redis repeats the arguments of a command that it does not know.
  return error.message.replace(/, with args beginning with:.*$/s, '')
}
