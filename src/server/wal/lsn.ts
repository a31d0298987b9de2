// A log sequence number: bytes from the start of the WAL, 64-bit; Postgres prints its halves in hex, `16/B374D848`.

const pattern = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/

/** @example parseLsn('16/B374D848') === 0x16b374d848n
 *  @throws RangeError on any other text. Source: PostgreSQL manual, pg_lsn Type */
export function parseLsn(text: string): bigint {
  const halves = pattern.exec(text)
  if (halves === null) throw new RangeError(`not a log sequence number: ${JSON.stringify(text)}`)
  return (BigInt(`0x${halves[1]}`) << 32n) | BigInt(`0x${halves[2]}`)
}

/** @example formatLsn(0x16b374d848n) === '16/B374D848' */
export const formatLsn = (lsn: bigint): string => `${hex(lsn >> 32n)}/${hex(lsn & 0xffffffffn)}`

const hex = (half: bigint): string => half.toString(16).toUpperCase()
