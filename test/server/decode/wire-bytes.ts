// Writes pgoutput messages byte by byte, as the manual's chapter Logical Replication Message Formats lists their fields.

export type Value = string | null | undefined

const uint8 = (value: number): Buffer => Buffer.from([value])
const uint16 = (value: number): Buffer => Buffer.from([value >> 8, value & 0xff])
const text = (value: string): Buffer => Buffer.from(`${value}\0`)
const letter = (value: string): Buffer => Buffer.from(value, 'latin1')

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value >>> 0)
  return bytes
}

function int64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigInt64BE(BigInt.asIntN(64, value))
  return bytes
}

export const begin = (xid = 700, finalLsn = 0x16b3748n, micros = 1n): Buffer =>
  Buffer.concat([letter('B'), int64(finalLsn), int64(micros), uint32(xid)])

export const commit = (commitLsn = 0x16b3748n, endLsn = commitLsn + 48n, micros = 1n): Buffer =>
  Buffer.concat([letter('C'), uint8(0), int64(commitLsn), int64(endLsn), int64(micros)])

export const origin = (name: string): Buffer => Buffer.concat([letter('O'), int64(1n), text(name)])

export const type = (oid: number, schema: string, name: string): Buffer =>
  Buffer.concat([letter('Y'), uint32(oid), text(schema), text(name)])

/** @param columns names; one that ends in `*` is in the replica identity */
export const relation = (oid: number, name: string, identity: 'd' | 'n' | 'f' | 'i', columns: string[]): Buffer =>
  Buffer.concat([
    letter('R'),
    uint32(oid),
    text('public'),
    text(name),
    letter(identity),
    uint16(columns.length),
    ...columns.map(column =>
      Buffer.concat([
        uint8(column.endsWith('*') || identity === 'f' ? 1 : 0),
        text(column.replace('*', '')),
        uint32(25),
        uint32(0xffff_ffff),
      ]),
    ),
  ])

/** null is `n`, undefined `u` (unchanged TOAST), a string `t`. */
export const tuple = (values: Value[]): Buffer =>
  Buffer.concat([
    uint16(values.length),
    ...values.map(value => {
      if (value === undefined) return letter('u')
      if (value === null) return letter('n')
      return Buffer.concat([letter('t'), uint32(Buffer.byteLength(value)), Buffer.from(value)])
    }),
  ])

export const insert = (oid: number, values: Value[]): Buffer =>
  Buffer.concat([letter('I'), uint32(oid), letter('N'), tuple(values)])

export const update = (oid: number, values: Value[], old?: ['K' | 'O', Value[]]): Buffer =>
  Buffer.concat([
    letter('U'),
    uint32(oid),
    ...(old === undefined ? [] : [letter(old[0]), tuple(old[1])]),
    letter('N'),
    tuple(values),
  ])

export const remove = (oid: number, old: ['K' | 'O', Value[]]): Buffer =>
  Buffer.concat([letter('D'), uint32(oid), letter(old[0]), tuple(old[1])])

export const truncate = (oids: number[], options = 0): Buffer =>
  Buffer.concat([letter('T'), uint32(oids.length), uint8(options), ...oids.map(uint32)])

export const message = (prefix: string, content: Buffer | string, transactional = true): Buffer =>
  Buffer.concat([
    letter('M'),
    uint8(transactional ? 1 : 0),
    int64(7n),
    text(prefix),
    uint32(Buffer.byteLength(content)),
    Buffer.from(content),
  ])
