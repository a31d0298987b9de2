// The relations of one replication session: what the last Relation message said of each table.
//
// Under publish_via_partition_root the rows of a partition come under the root's OID, in the root's columns, and with the
// root's word on what the old tuple holds. But what Postgres logged of the old row follows the *partition's* replica
// identity: with a root that is FULL and a new partition that is DEFAULT, a delete arrives as a "whole" old row whose other
// columns are null (seen on Postgres 15). Taken at its word, a policy on those columns would be judged on values that
// are not the row's. So a root gets the weakest identity of its partitions. Which they are, the stream tells: before a
// partition's first change in a session, and again after its catalog entry changed, the walsender sends Relation(root),
// Relation(partition), and then the change, under the root's OID (pgoutput.c, maybe_send_schema).
import type { Relation, RelationColumn } from './change.ts'
import type { RelationMessage } from './pgoutput.ts'

/** Holds every relation that changed in the session: bounded by the tables and partitions of the publication. */
export class RelationCache {
  readonly #relations = new Map<number, Relation>()
  /** The same as the wire has them, before a partition's identity weakened its root's. */
  readonly #received = new Map<number, Relation>()
  /** Partitions by their root. */
  readonly #partitions = new Map<number, Map<number, Relation>>()
  readonly #rootOf = new Map<number, number>()
  /** The last two Relation messages since the last change. */
  #previous: Relation | null = null
  #latest: Relation | null = null
  #announced: Map<number, Relation> | null = null

  /** Takes a Relation message in; always makes a new Relation. */
  receive(message: RelationMessage): void {
    const { oid, schema, name, replicaIdentity, columns } = message
    const relation: Relation = { oid, schema, name, replicaIdentity, columns }
    this.#previous = this.#latest
    this.#latest = relation
    this.#received.set(oid, relation)
    this.#set(this.#weakest(relation))
    const root = this.#rootOf.get(oid)
    if (root !== undefined) this.#addPartition(root, relation)
  }

  /** The relation that a change names; undefined when no Relation message came. Call it for each change that follows a
   *  Relation message, before the next one. */
  changed(oid: number): Relation | undefined {
    const [root, partition] = [this.#previous, this.#latest]
    if (root?.oid === oid && partition !== null && partition.oid !== oid && isPartition(partition, root)) {
      this.#rootOf.set(partition.oid, oid)
      this.#addPartition(oid, partition)
    }
    // A partition's changes come under its root: one with changes of its own is a table whose Relation message happened
    // to stand there.
    if (this.#rootOf.has(oid)) this.#removePartition(oid)
    this.#previous = this.#latest = null
    return this.#relations.get(oid)
  }

  /** A table that TRUNCATE names. */
  truncated(oid: number): Relation | undefined {
    this.#previous = this.#latest = null
    return this.#relations.get(oid)
  }

  /** Relations received since the last call, the last of each OID. */
  takeAnnounced(): readonly Relation[] {
    this.#previous = this.#latest = null
    if (this.#announced === null) return none
    const relations = [...this.#announced.values()]
    this.#announced = null
    return relations
  }

  #set(relation: Relation): void {
    this.#relations.set(relation.oid, relation)
    this.#announced ??= new Map()
    this.#announced.set(relation.oid, relation)
  }

  #addPartition(root: number, partition: Relation): void {
    const partitions = this.#partitions.get(root) ?? new Map<number, Relation>()
    this.#partitions.set(root, partitions.set(partition.oid, partition))
    this.#set(this.#weakest(this.#received.get(root)!))
  }

  #removePartition(oid: number): void {
    const root = this.#rootOf.get(oid)!
    this.#rootOf.delete(oid)
    this.#partitions.get(root)?.delete(oid)
    this.#set(this.#weakest({ ...this.#received.get(root)! }))
  }

  #weakest(root: Relation): Relation {
    const partitions = [...(this.#partitions.get(root.oid)?.values() ?? [])]
    if (partitions.length === 0) return root
    const identities = partitions.map(identityNames)
    const identity = (name: string) => identities.every(names => names.has(name))
    const columns: RelationColumn[] = root.columns.map(column => ({ ...column, identity: identity(column.name) }))
    const weak = partitions.find(partition => partition.replicaIdentity !== 'full')
    return { ...root, columns, replicaIdentity: weak?.replicaIdentity ?? 'full' }
  }
}

const none: readonly Relation[] = []

const identityNames = (relation: Relation): ReadonlySet<string> =>
  new Set(relation.columns.filter(column => column.identity).map(column => column.name))

/** A partition has its root's columns, in any order. */
function isPartition(partition: Relation, root: Relation): boolean {
  const types = new Map(partition.columns.map(column => [column.name, column.typeOid]))
  return types.size === root.columns.length && root.columns.every(column => types.get(column.name) === column.typeOid)
}
