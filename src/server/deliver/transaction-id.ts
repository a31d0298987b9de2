// Reads what pg_current_xact_id() gave somebody. Pure.
import { TidegateError } from '../../protocol/tidegate-error.ts'

/** @throws TXID_INVALID */
export function transactionIdOf(text: string): bigint {
  const xid64 = /^\d{1,20}$/.test(text) ? BigInt(text) : null
  // 0 to 2 are names of Postgres's own (transam.h): as a transaction it would take them for one long past.
  if (xid64 === null || xid64 < 3n || xid64 >= 2n ** 64n) {
    throw new TidegateError(
      'TXID_INVALID',
      `${JSON.stringify(text.slice(0, 40))} is no transaction id; send pg_current_xact_id()`,
    )
  }
  return xid64
}
