// What the loads of membership sets and of hops share: which rows to ask for, and what readers are told when it fails.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { InnerSet } from '../authorize/inner-set.ts'
import type { Table } from '../catalog/table.ts'
import type { BoundAnchor } from '../route/row-index.ts'

/** The catalog is being read again: soon there is an answer. */
export const tableChanged = ({ schema, name }: Table): TidegateError =>
  new TidegateError('UNSUBSCRIBED_TABLE_CHANGED', `${schema}.${name} changed; subscribe again`, { retryAfterMs: 250 })

/** Types whose canonical text Postgres reads as the value it came from. */
export const readableFamilies: ReadonlySet<string> = new Set([
  'int',
  'text',
  'uuid',
  'bpchar',
  'enum',
  'bool',
  'numeric',
])

/** One equality on a column that Postgres may look up; else the whole table is read. */
export function matchOf(
  table: Table,
  anchors: readonly BoundAnchor[] | null,
): { columns: number[]; keys: string[][] } | null {
  const anchor = anchors?.length === 1 ? anchors[0]! : null
  if (anchor?.kind !== 'const' || !readableFamilies.has(table.columns[anchor.column]!.type.family)) return null
  return { columns: [anchor.column], keys: anchor.keys.map(key => [key]) }
}

/** What a reader is told of a set that has failed: as Postgres raises where one of its rows cannot be judged. */
export function failureOf({ failure, table }: Pick<InnerSet, 'failure' | 'table'>): TidegateError {
  if (failure instanceof TidegateError) return failure
  const reason = failure instanceof Error ? failure.message : String(failure)
  const message = `a row of ${table.schema}.${table.name} cannot be judged with these claims: ${reason}`
  return new TidegateError('CLAIM_INVALID', message, { cause: failure })
}

/** Trying again does not help: readers who wait for it are ended with it. */
export const lasting: ReadonlySet<string> = new Set([
  'MEMBERSHIP_TOO_LARGE',
  'INDEX_FULL',
  'INDEX_NOT_READABLE',
  'CLAIM_INVALID',
])
