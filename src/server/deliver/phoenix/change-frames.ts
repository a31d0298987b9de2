// Frames of row changes, made once for all channels of one topic and binding, their data once for all topics.
import type { Batch, Outgoing, ShownColumn } from '../../subscribe/subscription.ts'
import { textFrame } from '../encode.ts'
import { changeDataOf, reactionTo } from './change-data.ts'
import { MadeOnce } from './made-once.ts'
import { messageText } from './serializer.ts'
import type { Binding, Vsn } from './wire.ts'

/** Of a channel: what its frames of one binding are made by. */
export interface ChangeTarget {
  readonly event: Binding['event']
  readonly columns: readonly ShownColumn[]
  /** What stands before the data of a change, and after it. */
  readonly around: (data: string) => readonly [string, string]
}

export interface TargetOptions {
  readonly vsn: Vsn
  readonly topic: string
  readonly event: Binding['event']
  /** Of the bindings that are told. */
  readonly bindingIds: readonly number[]
  readonly isLegacy: boolean
  readonly columns: readonly ShownColumn[]
}

/** By columns, which are a query's own, and then by the rest. Past so many all are made anew, which costs a frame for each event that is
 *  on its way. */
const targets = new WeakMap<readonly ShownColumn[], Map<string, ChangeTarget>>()
const maxTargets = 10_000

/** @returns the same for all whose frames are the same */
export function changeTarget(options: TargetOptions): ChangeTarget {
  const { vsn, topic, event, bindingIds, isLegacy, columns } = options
  let known = targets.get(columns)
  if (known === undefined || known.size >= maxTargets) {
    known = new Map()
    targets.set(columns, known)
  }
  const name = `${vsn} ${isLegacy} ${bindingIds.join()} ${event} ${topic}`
  let target = known.get(name)
  if (target === undefined) {
    target = { event, columns, around: isLegacy ? aroundLegacy(vsn, topic) : aroundChange(vsn, topic, bindingIds) }
    known.set(name, target)
  }
  return target
}

function aroundChange(vsn: Vsn, topic: string, ids: readonly number[]): ChangeTarget['around'] {
  const around = cut(vsn, topic, 'postgres_changes', `{"ids":[${ids.join()}],"data":${mark}}`)
  return () => around
}

const aroundLegacy =
  (vsn: Vsn, topic: string): ChangeTarget['around'] =>
  data =>
    cut(vsn, topic, typeOf(data), mark)

/** JSON text holds none. */
const mark = '\0'

function cut(vsn: Vsn, topic: string, event: string, payload: string): readonly [string, string] {
  const text = messageText(vsn, { joinRef: null, ref: null, topic, event, payload })
  const at = text.indexOf(mark)
  return [text.slice(0, at), text.slice(at + mark.length)]
}

const typeOf = (data: string): string => /"type":"([A-Z]+)"/.exec(data)?.[1] ?? 'UPDATE'

/** @returns empty where the client is not told; null where what it holds is void, and no frame says so */
export const changeFrameOf = (outgoing: Outgoing, target: ChangeTarget): Buffer | null =>
  eventFrames.of(outgoing, target, () => makeFrame(outgoing, target))

/** The frames of a batch, one after the other. */
export function changeFramesOf(batch: Batch, target: ChangeTarget): Buffer | null {
  return batch.events.length === 1
    ? changeFrameOf(batch.events[0]!, target)
    : batchFrames.of(batch, target, () => makeFrames(batch.events, target))
}

const eventFrames = new MadeOnce<Outgoing, Buffer | null>()
const batchFrames = new MadeOnce<Batch, Buffer | null>()
const eventData = new MadeOnce<Outgoing, string>()

function makeFrames(events: readonly Outgoing[], target: ChangeTarget): Buffer | null {
  const frames: Buffer[] = []
  for (const event of events) {
    const frame = changeFrameOf(event, target)
    if (frame === null) return null
    frames.push(frame)
  }
  return Buffer.concat(frames)
}

function makeFrame(outgoing: Outgoing, { event, columns, around }: ChangeTarget): Buffer | null {
  const reaction = reactionTo(outgoing, event)
  if (reaction === 'reread') return null
  if (reaction === 'pass') return nothing
  const make = (): string => changeDataOf(outgoing, columns, event)
  // Mostly one channel is told, and nobody asks for the data again.
  const data =
    outgoing.elsewhere === undefined ? make() : eventData.of(outgoing, event === 'UPDATE' ? 'update' : 'any', make)
  const [before, after] = around(data)
  return textFrame(`${before}${data}${after}`)
}

const nothing: Buffer = Buffer.alloc(0)
