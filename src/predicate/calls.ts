// Functions and operators of Postgres that are computed here, exactly: what is not in this table is asked of Postgres.
//
// Each is told what its arguments are when a predicate is compiled, and refuses types that it is not exact for; what it gives
// then takes values, and throws ValueError where Postgres raises.
import { TidegateError } from '../protocol/tidegate-error.ts'
import type { CallName } from './algebra.ts'
import { arrayCalls, arrayCallsWithNulls } from './array-calls.ts'
import type { Call, Calls, Compute, ComputeWithNulls } from './call.ts'
import { datetimeCalls } from './datetime-calls.ts'
import { jsonCalls, jsonCallsWithNulls } from './json-calls.ts'
import { numberCalls, numberCallsWithNulls } from './number-calls.ts'
import { baseOf } from './sql-types.ts'
import { textCalls, textCallsWithNulls } from './text-calls.ts'

const strict: Calls<Compute> = { ...textCalls, ...arrayCalls, ...jsonCalls, ...numberCalls, ...datetimeCalls }

const withNulls: Calls<ComputeWithNulls> = {
  ...textCallsWithNulls,
  ...arrayCallsWithNulls,
  ...jsonCallsWithNulls,
  ...numberCallsWithNulls,
}

/** Whether a NULL argument makes the result NULL, whatever the others are. */
export const isStrictCall = (name: CallName): boolean => withNulls[name] === undefined

/** @returns the result from the arguments' values; a strict call is never given a null
 *  @throws POLICY_UNSUPPORTED for arguments that only Postgres computes exactly */
export function callFunction({ name, args, type }: Call): ComputeWithNulls {
  const types = args.map(arg => baseOf(arg.type))
  const shown = types.map(each => each.name).join(', ')
  if (types.some(({ collation }) => collation === 'nondeterministic'))
    throw new TidegateError(
      'POLICY_UNSUPPORTED',
      `${name} over ${shown} under a nondeterministic collation is Postgres's`,
    )
  const made = strict[name]?.(types, type) ?? withNulls[name]?.(types, type) ?? null
  if (made === null) throw new TidegateError('POLICY_UNSUPPORTED', `${name} over ${shown} is not computed exactly here`)
  return made as ComputeWithNulls
}
