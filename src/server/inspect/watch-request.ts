// Which table is to be watched, and as whom: the parameters of a URL, parsed once. Pure.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { requestOfFrame } from '../deliver/url.ts'
import { parseExplainRequest } from '../explain/request.ts'
import type { Principal, SubscribeRequest } from '../subscribe/subscription.ts'

const names: ReadonlySet<string> = new Set(['table', 'role', 'claims', 'filter', 'order', 'limit'])

/** @param roleClaim the claim that names the role
 *  @throws FILTER_INVALID, TABLE_UNKNOWN, FILTER_TOO_COMPLEX */
export function parseWatchRequest(
  parameters: URLSearchParams,
  roleClaim: string,
): { readonly principal: Principal; readonly request: SubscribeRequest } {
  const stray = [...parameters.keys()].find(name => !names.has(name))
  if (stray !== undefined) throw invalid(`there is no parameter ${shown(stray)}; there are ${[...names].join(', ')}`)
  const single = (name: string): string | undefined => {
    const [value, second] = parameters.getAll(name)
    if (second !== undefined) throw invalid(`${name} stands twice`)
    return value === '' ? undefined : value
  }
  const table = single('table')
  if (table === undefined) throw invalid('no table is named; write table=<schema>.<table>')
  const user = parseExplainRequest({ table, role: single('role'), claims: single('claims'), keys: [] }, roleClaim)
  const filter = single('filter')
  const order = single('order')
  const limit = single('limit')
  if (limit !== undefined && !/^[1-9]\d{0,8}$/.test(limit)) throw invalid(`limit=${shown(limit)} is no number of rows`)
  const request = requestOfFrame({
    type: 'subscribe',
    id: 1,
    kind: 'live',
    table,
    ...(filter === undefined ? {} : { filter }),
    ...(order === undefined ? {} : { order }),
    ...(limit === undefined ? {} : { limit: Number(limit) }),
  })
  // As in the tokens of those who have the role: `auth.role()` reads the claim.
  const claims = user.claims ?? { [roleClaim]: user.role }
  return { principal: { role: user.role, claims, expiresAt: null }, request }
}

const shown = (text: string): string => JSON.stringify(text.slice(0, 80))

const invalid = (message: string): TidegateError => new TidegateError('FILTER_INVALID', message)
