// A refusal of the server, to be thrown.
import type { Code } from '../protocol/codes.ts'
import { TidegateError } from '../protocol/tidegate-error.ts'
import type { Refusal } from './status.ts'

/** A later server may have codes that are not known here: they are handed on as they are. */
export const refusalError = (refusal: Refusal | null): TidegateError =>
  new TidegateError((refusal?.code ?? 'INTERNAL') as Code, refusal?.message ?? 'refused')
