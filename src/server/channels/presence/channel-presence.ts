// What the members of one channel on this node are told of who is there.

import type { Position } from '../../../protocol/position.ts'
import { Batch, type Receivers } from '../../route/batch.ts'
import { Outgoing } from '../../route/outgoing.ts'
import { changeJson, hereJson } from '../event-json.ts'
import type { PresenceRule } from '../rules.ts'
import type { ChannelTurn } from '../turn.ts'
import type { PresenceDiff, PresenceEntry, PresenceStore } from './presence.ts'
import { type MirroredChange, PresenceMirror } from './presence-mirror.ts'

/** A member that wants to know who is there. */
export interface PresenceWatcher {
  /** It has not been told yet who is here, or missed what changed. */
  isPresenceOwed: boolean
  /** Whether it takes events now; else it is owed who is here once it does. */
  readonly takesPresence: boolean
  receive(turn: ChannelTurn): void
}

export interface ChannelPresenceOptions {
  readonly store: PresenceStore
  /** Its key. */
  readonly channel: string
  readonly rule: PresenceRule
  readonly receivers: Receivers
  /** Where members stand who have all that was told. */
  readonly position: () => Position
  /** Whether who comes and goes may be told now: what was revoked is known here. */
  readonly mayTell: () => boolean
  /** It may not: call `goOn` when it may. */
  readonly onHeld: () => void
  readonly now: () => number
}

const nobody: ReadonlySet<string> = new Set()
/** Counts of many members are told to each of them: the more they are, the less often. */
const countMsPerWatcher = 0.1

export class ChannelPresence {
  readonly #options: ChannelPresenceOptions
  readonly #watchers = new Set<PresenceWatcher>()
  /** While anybody watches. */
  #mirror: PresenceMirror | null = null
  /** What was told last of who is here, as long as it is true. */
  #here: { readonly position: Position; readonly turn: ChannelTurn } | null = null
  #countTimer: NodeJS.Timeout | null = null
  #countedAtMs = Number.NEGATIVE_INFINITY
  #isHeld = false

  constructor(options: ChannelPresenceOptions) {
    this.#options = options
  }

  /** Whether it holds who is here: somebody watches. */
  get isMirrored(): boolean {
    return this.#mirror !== null
  }

  /** Who is here, as far as it holds that: null where nobody watches, where it is not known yet, and where they are more than listed. */
  get entries(): readonly PresenceEntry[] | null {
    return this.#mirror?.here()?.entries ?? null
  }

  /** Somebody is owed who is here, until the stream moves. */
  get isHeld(): boolean {
    return this.#isHeld
  }

  /** The stream may move again: whoever is owed who is here is told. */
  goOn(): void {
    if (!this.#isHeld || !this.#options.mayTell()) return
    this.#isHeld = false
    for (const watcher of [...this.#watchers]) this.tellHere(watcher)
  }

  /** Its first event says who is here. */
  watch(watcher: PresenceWatcher): void {
    watcher.isPresenceOwed = true
    this.#watchers.add(watcher)
    if (this.#mirror === null) {
      const { store, channel, rule } = this.#options
      this.#mirror = new PresenceMirror({ store, channel, rule, onChange: change => this.#changed(change) })
      this.#mirror.interrupted()
    } else this.tellHere(watcher)
  }

  unwatch(watcher: PresenceWatcher): void {
    if (!this.#watchers.delete(watcher) || this.#watchers.size > 0) return
    this.close()
  }

  take(diff: PresenceDiff): void {
    this.#mirror?.take(diff)
  }

  interrupted(): void {
    this.#mirror?.interrupted()
  }

  /** Pays what is owed, where it is known. */
  tellHere(watcher: PresenceWatcher): void {
    const here = this.#mirror?.here() ?? null
    if (here === null || !watcher.isPresenceOwed || !watcher.takesPresence || this.#holds()) return
    watcher.isPresenceOwed = false
    // Those who come together share it: of a thousand members it takes 150 kB.
    const position = this.#options.position()
    if (this.#here === null || !isSame(this.#here.position, position))
      this.#here = { position, turn: this.#turnOf(hereJson(here.entries, here.count)) }
    watcher.receive(this.#here.turn)
  }

  close(): void {
    if (this.#countTimer !== null) clearTimeout(this.#countTimer)
    this.#countTimer = null
    this.#mirror?.close()
    this.#mirror = this.#here = null
    this.#isHeld = false
  }

  #changed(change: MirroredChange): void {
    this.#here = null
    if (change.kind === 'counted') {
      this.#count()
      return
    }
    if (change.kind === 'here') {
      const turn = this.#turnOf(hereJson(change.here, change.count))
      for (const watcher of [...this.#watchers]) this.#tell(watcher, turn, true)
      return
    }
    const turn = this.#turnOf(changeJson(change, change.count))
    for (const watcher of [...this.#watchers]) this.#tell(watcher, turn, false)
  }

  #tell(watcher: PresenceWatcher, turn: ChannelTurn, isWhole: boolean): void {
    if (!watcher.takesPresence || this.#holds()) {
      watcher.isPresenceOwed = true
      return
    }
    if (isWhole) watcher.isPresenceOwed = false
    else if (watcher.isPresenceOwed) {
      this.tellHere(watcher)
      return
    }
    watcher.receive(turn)
  }

  #holds(): boolean {
    if (this.#options.mayTell()) return false
    if (!this.#isHeld) {
      this.#isHeld = true
      this.#options.onHeld()
    }
    return true
  }

  /** Tells the count as it is when the time has come. */
  #count(): void {
    if (this.#countTimer !== null) return
    const { now } = this.#options
    const waitMs = this.#countedAtMs + this.#watchers.size * countMsPerWatcher - now()
    const tell = (): void => {
      this.#countTimer = null
      this.#countedAtMs = now()
      const here = this.#mirror?.here()
      // Few enough again: all of them have been told since.
      if (here === null || here === undefined || here.entries !== null) return
      const turn = this.#turnOf(hereJson(null, here.count))
      for (const watcher of [...this.#watchers]) this.#tell(watcher, turn, true)
    }
    if (waitMs <= 0) tell()
    else this.#countTimer = setTimeout(tell, waitMs)
  }

  #turnOf(json: string): ChannelTurn {
    const position = this.#options.position()
    const outgoing = new Outgoing('presence', json, position)
    const event = { outgoing, event: '', seq: position.lsn, message: null }
    const batch = new Batch(this.#options.receivers, [outgoing], position.lsn)
    return { events: [event], batch, hasTarget: false, senders: nobody }
  }
}

const isSame = (a: Position, b: Position): boolean => a.epoch === b.epoch && a.lsn === b.lsn && a.index === b.index
