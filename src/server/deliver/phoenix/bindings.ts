// A binding of `postgres_changes` as subscriptions of ours. Pure.
//
// Who is bound to `INSERT` or `*` hears of each row that comes into its view, as INSERT; to `DELETE` or `*`, of each that goes, as
// DELETE; to `*`, of each that changes within it, as UPDATE. Who is bound to `UPDATE` alone hears of every UPDATE after which it
// sees the row, so also of one that brought the row into its view, which is our `insert`: see change-data.ts.
import type { ClientFrame } from '../../../protocol/messages.ts'
import { TidegateError } from '../../../protocol/tidegate-error.ts'
import { filterQueryOf } from './filter.ts'
import type { Binding } from './wire.ts'

type SubscribeFrame = Extract<ClientFrame, { type: 'subscribe' }>

const eventsOf: Readonly<Record<Binding['event'], SubscribeFrame['events'] | null>> = {
  '*': null,
  INSERT: ['insert'],
  UPDATE: ['insert', 'update'],
  DELETE: ['delete'],
}

/** @param table one of those that the binding means; see tables.ts
 *  @throws FILTER_INVALID, FILTER_TOO_COMPLEX */
export function subscribeFrameOf(
  binding: Binding,
  { schema, table }: { readonly schema: string; readonly table: string },
  id: number,
): SubscribeFrame {
  const { event, filter, select } = binding
  if (select !== null && isWildcard(binding)) {
    throw new TidegateError(
      'FILTER_INVALID',
      'Column selection is not supported for wildcard subscriptions. Provide an explicit schema and table name.',
    )
  }
  const query = filter === null ? '' : filterQueryOf(filter)
  const events = eventsOf[event]
  return {
    type: 'subscribe',
    id,
    kind: 'changes',
    table: `${quote(schema)}.${quote(table)}`,
    ...(query === '' ? {} : { filter: query }),
    // The primary key is added to what is asked for, by `changes` itself.
    ...(select === null || select.length === 0 ? {} : { select: [...select] }),
    ...(events == null ? {} : { events }),
  }
}

/** Whether it means whatever tables there are. */
export const isWildcard = ({ schema, table }: Pick<Binding, 'schema' | 'table'>): boolean =>
  schema === '*' || table === '*'

const quote = (name: string): string => `"${name.replaceAll('"', '""')}"`
