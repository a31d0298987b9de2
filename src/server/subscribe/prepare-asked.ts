// From what a client asks to what Postgres is asked, where a policy does not compile.

import { parseFilter } from '../../predicate/postgrest.ts'
import type { Warning } from '../../protocol/messages.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { AskedRequest } from '../ask/asked-audiences.ts'
import { RemedyNeeded } from '../catalog/table.ts'
import { answered } from '../postgres/database.ts'
import { userOf } from '../snapshot/reader.ts'
import { columnsShown, type PrepareOptions } from './prepare.ts'
import { orderingOf } from './prepare-order.ts'
import type { Principal, SubscribeRequest } from './subscription.ts'

export interface PreparedAsked {
  readonly request: AskedRequest
  readonly warnings: readonly Warning[]
}

/** Whether a refusal says that only Postgres can judge, and nothing that could be mended here. */
export const isAskable = (error: unknown): error is TidegateError =>
  error instanceof TidegateError && error.code === 'POLICY_UNSUPPORTED' && !(error instanceof RemedyNeeded)

/** @param reason what `prepare` refused it with: an asked table's replica identity and membership tables do not matter
 *  @throws TidegateError with a peer code */
export async function prepareAsked(
  { catalog, settingsOf, filterLimits, maxLimit, recheckMs }: PrepareOptions & { readonly recheckMs: number },
  principal: Principal,
  request: SubscribeRequest,
  reason: TidegateError,
): Promise<PreparedAsked> {
  const table = await answered(catalog.table(request.schema, request.table))
  const access = await answered(catalog.accessOrAsked(table, principal.role))
  const columns = columnsShown(access, request.select)
  const ordering = orderingOf(access, request, columns, maxLimit)
  const readable = table.columns.map((column, i) => (access.readable.has(i) ? column : { ...column, name: '' }))
  const filter = parseFilter(request.filters, readable, filterLimits)
  const message = `Postgres is asked for ${table.schema}.${table.name}, and what its policies grant or revoke is noticed within ${recheckMs} ms: ${reason.message}`
  return {
    request: {
      query: { kind: request.kind, table, filter, columns, events: request.events, ordering },
      reader: { role: principal.role, settings: settingsOf(principal), user: userOf(principal) },
    },
    warnings: [{ code: 'POLICY_ASKED', message }],
  }
}
