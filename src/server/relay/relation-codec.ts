// Relations in a block of the journal: as the leader's RelationCache resolved them, because a reader that begins at any
// block does not see the order of the WAL's own Relation messages, which tells roots and partitions.
//
//   oid uint32 · replica identity uint8 · columns uint32 · schema · name · per column: identity uint8, type OID uint32, type
//   modifier int32, name. A text is its length in bytes (uint32) and UTF-8. All big-endian.
import type { Relation, RelationColumn } from '../decode/change.ts'
import { type Sole, soleOf } from '../decode/held-commit.ts'

const identities = ['default', 'nothing', 'full', 'index'] as const

const definitions = new WeakMap<Relation, Buffer>()

/** The bytes that define the relation; made once for each object. */
export function definitionOf(relation: Relation): Buffer {
  let definition = definitions.get(relation)
  if (definition === undefined) {
    definition = encodeRelation(relation)
    definitions.set(relation, definition)
  }
  return definition
}

function encodeRelation({ oid, schema, name, replicaIdentity, columns }: Relation): Buffer {
  const head = Buffer.alloc(9)
  head.writeUInt32BE(oid, 0)
  head[4] = identities.indexOf(replicaIdentity)
  head.writeUInt32BE(columns.length, 5)
  const parts = [head, text(schema), text(name)]
  for (const { identity, typeOid, typeModifier, name } of columns) {
    const column = Buffer.alloc(9)
    column[0] = identity ? 1 : 0
    column.writeUInt32BE(typeOid, 1)
    column.writeInt32BE(typeModifier, 5)
    parts.push(column, text(name))
  }
  return Buffer.concat(parts)
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value)
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([length, bytes])
}

export interface KnownRelation extends Sole {
  readonly relation: Relation
  readonly definition: Buffer
  /** Number of the last block that defined it. */
  block: number
}

/** Beyond these all are forgotten: what comes again is a new object, as after a Relation message. */
const maxKnown = 10_000

/** The relations that blocks defined, by content: as long as a table's definition stays the same, it is the same object in
 *  every block. Within one block two equal definitions are two objects, as they were two messages: `announced` says so. */
export class KnownRelations {
  /** The last of each OID. */
  readonly #known = new Map<number, KnownRelation>()
  #block = 0

  beginBlock(): void {
    this.#block++
  }

  /** @throws RangeError for what `definitionOf` cannot have made */
  resolve(bytes: Buffer): KnownRelation {
    const oid = bytes.readUInt32BE(0)
    const known = this.#known.get(oid)
    if (known !== undefined && known.block !== this.#block && known.definition.equals(bytes)) {
      known.block = this.#block
      return known
    }
    // A copy: the block's own bytes would be kept alive by it.
    const definition = Buffer.from(bytes)
    const relation = decodeRelation(definition)
    const resolved = { relation, definition, block: this.#block, ...soleOf(relation) }
    if (this.#known.size >= maxKnown) this.#known.clear()
    this.#known.set(oid, resolved)
    return resolved
  }
}

function decodeRelation(bytes: Buffer): Relation {
  let at = 9
  const text = (): string => {
    const start = at + 4
    at = start + bytes.readUInt32BE(at)
    if (at > bytes.length) throw new RangeError('a name ends too late')
    return bytes.toString('utf8', start, at)
  }
  const oid = bytes.readUInt32BE(0)
  const replicaIdentity = identities[bytes.readUInt8(4)]
  if (replicaIdentity === undefined) throw new RangeError('a replica identity is unknown')
  const schema = text()
  const name = text()
  const columns: RelationColumn[] = []
  for (let count = bytes.readUInt32BE(5); count > 0; count--) {
    const column = at
    at += 9
    columns.push({
      identity: bytes.readUInt8(column) === 1,
      name: text(),
      typeOid: bytes.readUInt32BE(column + 1),
      typeModifier: bytes.readInt32BE(column + 5),
    })
  }
  if (at !== bytes.length) throw new RangeError('a relation ends too late')
  return { oid, schema, name, replicaIdentity, columns }
}
