// Frames of row changes, made once for all channels of one topic and binding, their data once for all topics.
import type { Batch, Outgoing } from '../../subscribe/subscription.ts'
import { changeDataOf, reactionTo } from './change-data.ts'
import { messageFrame } from './serializer.ts'
import type { Binding, ColumnType, Vsn } from './wire.ts'

/** Of a channel: what its frames of one binding are made by. */
export interface ChangeTarget {
  readonly vsn: Vsn
  readonly topic: string
  readonly event: Binding['event']
  /** Of the bindings that are told. */
  readonly bindingIds: readonly number[]
  readonly isLegacy: boolean
  readonly columns: readonly ColumnType[]
  /** Tells targets apart whose frames differ. */
  readonly name: string
}

/** @returns empty where the client is not told; null where what it holds is void, and no frame says so */
export function changeFrameOf(outgoing: Outgoing, target: ChangeTarget): Buffer | null {
  return kept(eventFrames, outgoing, target.name, () => makeFrame(outgoing, target))
}

/** The frames of a batch, one after the other. */
export function changeFramesOf(batch: Batch, target: ChangeTarget): Buffer | null {
  // Mostly everybody who gets a batch is in the same channel, one after the other.
  if (last.batch === batch && last.name === target.name) return last.frames
  const frames = kept(batchFrames, batch, target.name, () => {
    const all: Buffer[] = []
    for (const event of batch.events) {
      const frame = changeFrameOf(event, target)
      if (frame === null) return null
      all.push(frame)
    }
    return all.length === 1 ? all[0]! : Buffer.concat(all)
  })
  last = { batch, name: target.name, frames }
  return frames
}

let last: { readonly batch: Batch | null; readonly name: string; readonly frames: Buffer | null } = {
  batch: null,
  name: '',
  frames: null,
}

/** As long as somebody waits for the event; as many as there are channels of different names. */
type Kept<Of extends object, Made> = WeakMap<Of, Map<string, Made>>
const eventFrames: Kept<Outgoing, Buffer | null> = new WeakMap()
const batchFrames: Kept<Batch, Buffer | null> = new WeakMap()
const eventData: Kept<Outgoing, string> = new WeakMap()

function kept<Of extends object, Made>(all: Kept<Of, Made>, of: Of, name: string, make: () => Made): Made {
  let known = all.get(of)
  if (known === undefined) {
    known = new Map()
    all.set(of, known)
  }
  let made = known.get(name)
  if (made === undefined) {
    made = make()
    known.set(name, made)
  }
  return made
}

function makeFrame(
  outgoing: Outgoing,
  { vsn, topic, event, bindingIds, isLegacy, columns }: ChangeTarget,
): Buffer | null {
  const reaction = reactionTo(outgoing, event)
  if (reaction === 'reread') return null
  if (reaction === 'pass') return nothing
  const data = kept(eventData, outgoing, event === 'UPDATE' ? 'update' : 'any', () =>
    changeDataOf(outgoing, columns, event),
  )
  const told = isLegacy
    ? { event: typeOf(data), payload: data }
    : { event: 'postgres_changes', payload: `{"ids":[${bindingIds.join()}],"data":${data}}` }
  return messageFrame(vsn, { joinRef: null, ref: null, topic, ...told })
}

const nothing: Buffer = Buffer.alloc(0)

const typeOf = (data: string): string => /"type":"([A-Z]+)"/.exec(data)?.[1] ?? 'UPDATE'
