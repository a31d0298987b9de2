// The explanations of a running server, for its operators: a few at a time, so that they hold up nobody's snapshot.
import { Places } from '../postgres/places.ts'
import { type ExplainOptions, explain } from './explain.ts'
import type { Explanation } from './explanation.ts'
import { parseExplainParameters } from './request.ts'

/** @param roleClaim JWT_ROLE_CLAIM
 *  @returns explains what the parameters of a URL ask for; @throws BUSY, and as `explain` and `parseExplainParameters` */
export function createExplainer(
  options: ExplainOptions,
  roleClaim: string,
): (parameters: URLSearchParams) => Promise<Explanation> {
  const places = new Places([{ of: ['explanation'], most: 2 }], { explanation: 0 })
  return async parameters => {
    const request = parseExplainParameters(parameters, roleClaim)
    await places.take('explanation', { queueLimit: 20 })
    try {
      return await explain(options, request)
    } finally {
      places.free('explanation')
    }
  }
}
