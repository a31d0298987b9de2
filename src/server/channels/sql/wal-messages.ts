// Messages that the database sent: the rows that commits INSERT into realtime.messages, our own table or the partitioned one of
// Supabase.
import type { Commit, Relation, Tuple } from '../../decode/change.ts'
import { storedJson } from '../../decode/values.ts'
import type { Draft, Sender, Stamp } from '../message.ts'

/** Where the columns stand in a relation; -1: an older table without it. */
interface Places {
  readonly id: number
  readonly topic: number
  readonly extension: number
  readonly event: number
  readonly payload: number
  readonly isPrivate: number
  readonly binaryPayload: number
}

const [uuidOid, textOid, jsonbOid, booleanOid, byteaOid] = [2950, 25, 3802, 16, 17] as const
const nobody: Sender = { user: null, connection: null }
/** Microseconds from 1970 to 2000, from where the wire counts. */
const wireEpochMicros = 946_684_800_000_000n

export class WalMessages {
  /** Null for a relation that is not messages. */
  readonly #places = new WeakMap<Relation, Places | null>()

  /** Whether there may be some; for a commit of one other table it costs one comparison of names. */
  concerns(commit: Pick<Commit, 'layouts'>): boolean {
    for (const relation of commit.layouts) if (isMessages(relation)) return true
    return false
  }

  /** Those of a commit, in the order in which they were sent, each with its place among the commit's raw changes. Walks the
   *  commit as it is asked: a spooled one stays in its file.
   *  @param epoch of the stream
   *  @param from raw change to begin with
   *  @throws WAL_UNREADABLE */
  *of(commit: Commit, epoch: string, from = 0): Generator<Draft> {
    if (!this.concerns(commit)) return
    const stamp: Stamp = { epoch, lsn: commit.commitLsn }
    const sentAtMs = Number((commit.committedAtMicros + wireEpochMicros) / 1000n)
    for (const change of commit.passing(from)) {
      if (change.kind !== 'insert') continue
      const places = this.#placesIn(change.relation)
      const said = places === null ? null : read(change.new, places)
      if (said !== null) yield { ...said, sender: nobody, sentAtMs, to: null, stamp, walIndex: change.index }
    }
  }

  #placesIn(relation: Relation): Places | null {
    let places = this.#places.get(relation)
    if (places === undefined) {
      places = isMessages(relation) ? placesOf(relation) : null
      this.#places.set(relation, places)
    }
    return places
  }
}

const isMessages = ({ schema, name }: Relation): boolean => name === 'messages' && schema === 'realtime'

/** @returns null where columns are missing or are of other types, which `migrate` says */
function placesOf({ columns }: Relation): Places | null {
  const place = (name: string, typeOid: number): number =>
    columns.findIndex(column => column.name === name && column.typeOid === typeOid)
  const places: Places = {
    id: place('id', uuidOid),
    topic: place('topic', textOid),
    extension: place('extension', textOid),
    event: place('event', textOid),
    payload: place('payload', jsonbOid),
    isPrivate: place('private', booleanOid),
    binaryPayload: place('binary_payload', byteaOid),
  }
  const { binaryPayload: _, ...needed } = places
  return Object.values(needed).includes(-1) ? null : places
}

type Said = Pick<Draft, 'channel' | 'id' | 'event' | 'payload' | 'isBinary'>

/** @returns null for what is no broadcast */
function read(row: Tuple, places: Places): Said | null {
  const [id, topic, event] = [row.text(places.id), row.text(places.topic), row.text(places.event)]
  if (row.text(places.extension) !== 'broadcast' || id == null || topic == null || event == null) return null
  // What does not say that it is public is guarded.
  const channel = { topic, isPrivate: row.text(places.isPrivate) !== 'f' }
  const binary = places.binaryPayload < 0 ? null : row.text(places.binaryPayload)
  if (binary != null) return { channel, id, event, payload: base64Json(binary), isBinary: true }
  const payload = row.text(places.payload)
  return { channel, id, event, payload: payload == null ? 'null' : storedJson(payload), isBinary: false }
}

/** @param text `\x6869`, as the session has it pinned */
const base64Json = (text: string): string => `"${Buffer.from(text.slice(2), 'hex').toString('base64')}"`
