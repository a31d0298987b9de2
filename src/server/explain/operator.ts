// The explanations of a running server, for its operators: a few at a time, so that they hold up nobody's snapshot.
import { Admission } from '../snapshot/admission.ts'
import { type ExplainOptions, explain } from './explain.ts'
import type { Explanation } from './explanation.ts'
import { parseExplainParameters } from './request.ts'

/** @param roleClaim JWT_ROLE_CLAIM
 *  @returns explains what the parameters of a URL ask for; @throws BUSY, and as `explain` and `parseExplainParameters` */
export function createExplainer(
  options: ExplainOptions,
  roleClaim: string,
): (parameters: URLSearchParams) => Promise<Explanation> {
  const admission = new Admission(2, 20)
  return async parameters => {
    const request = parseExplainParameters(parameters, roleClaim)
    return admission.run(() => explain(options, request))
  }
}
