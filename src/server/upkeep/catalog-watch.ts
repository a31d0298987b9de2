// Notices that the catalog changed, and at which commit.
//
// The guarantee: no row of a commit that changed the rules, nor of any after it, is judged by the rules before. The simple
// way, to ask once a second, lets a second's rows through. So where an event trigger could be made, each such commit says so
// in the stream (announcement.ts), and the stream stands at it until the catalog has been read. But SQL may not show yet
// what the stream has told: what was read counts only if its snapshot sees that commit. A commit that waits for a standby
// may stay invisible for ever. The stream must not stand still for it, and nothing may be judged by what it replaced: so
// past `maxWaitMs` nothing is judged at all, every subscription ends with UNAVAILABLE, and new ones are refused, until the
// catalog has been read.
//
// Roles fire no event trigger, and some databases allow none: so the poll goes on in any case.
import type { Announcements } from '../catalog/announcement.ts'
import type { CatalogLook } from '../catalog/catalog.ts'
import type { Commit } from '../decode/change.ts'
import type { Log } from '../log/log.ts'
import type { Trouble } from '../log/trouble.ts'
import { isAway } from '../postgres/database.ts'
import { isBefore, low32, type Snapshot } from '../wal/visibility.ts'

export interface CatalogWatchOptions {
  /** Gives null while SQL does not show these transactions. */
  readonly look: (sees: readonly number[]) => Promise<CatalogLook | null>
  readonly announcements: Pick<Announcements, 'isIn' | 'isComplete' | 'refresh'>
  /** Resolves when the stream has passed this point. */
  readonly passed: (fence: bigint) => Promise<void>
  /** What was read is not true any more: every subscription is looked at anew. Never waits for the stream. */
  readonly onChange: () => Promise<void>
  /** The stream is at a commit that changed the catalog, also when that has been read already. */
  readonly onAnnounced: () => void
  /** The rules cannot be read: nothing may be judged until `onReadAgain`. */
  readonly onUnreadable: () => void
  readonly onReadAgain: () => void
  readonly log: Log
  readonly trouble: Trouble
  readonly now: () => number
}

/** How long the stream stands for a change that SQL does not show. */
const maxWaitMs = 1000
/** The same for a database that does not answer: a busy one may take its time. */
const maxLookMs = 3000
/** The same for a commit that only describes its table anew, as each first one of a session does: what it changed by itself
 *  is seen then, if it is seen at all. */
const describedWaitMs = 100
const firstPauseMs = 1
const maxPauseMs = 50
/** Between attempts while nothing is judged. */
const retryMs = 100
/** Changes awaited by number; of more, all that were running before the newest. */
const maxAwaited = 1000

export class CatalogWatch {
  readonly #options: CatalogWatchOptions
  #fingerprint: string | null = null
  /** Of the look whose rules are in force. */
  #applied: Snapshot | null = null
  /** One look after the other. */
  #last: Promise<unknown> = Promise.resolve()
  #isPolling = false
  /** The stream stands and waits for a look: whoever waits for the stream gives way. */
  #isAwaited = false
  #giveWay: () => void = () => {}
  /** What must be seen before anything is judged again; null while all is well. */
  #awaited: Awaited | null = null
  #retry: NodeJS.Timeout | undefined
  #isWarned = false
  #isStopped = false

  constructor(options: CatalogWatchOptions) {
    this.#options = options
  }

  /** Looks, once a second. Does nothing while the poll before is under way, which may wait for a lock. */
  async poll(): Promise<void> {
    if (this.#isPolling || this.#isStopped) return
    this.#isPolling = true
    try {
      await this.#inTurn(() => this.#poll())
    } catch (error) {
      this.#options.log.error({ err: error }, 'what changed in the catalog could not be applied; trying again')
    } finally {
      this.#isPolling = false
    }
  }

  /** The stream is at this commit, before its rows. @param isDescribed the WAL describes a table anew that is followed, as
   *  it does after ALTER TABLE, and now and then
   *  @returns null when the stream may go on at once */
  reached(commit: Commit, isDescribed: boolean): Promise<void> | null {
    const { announcements } = this.#options
    const isAnnounced = announcements.isIn(commit)
    // A look now could see a change before the commit that announces it.
    if (!isAnnounced && (!isDescribed || announcements.isComplete)) return null
    if (isAnnounced) this.#options.onAnnounced()
    if (this.#awaited !== null) {
      if (isAnnounced) this.#awaited.add(commit.xid)
      return null
    }
    if (this.#applied?.sees(commit.xid)) return null
    this.#isAwaited = true
    this.#giveWay()
    return this.#inTurn(() => this.#lookFor(commit.xid, isAnnounced)).finally(() => {
      this.#isAwaited = false
    })
  }

  stop(): void {
    this.#isStopped = true
    clearTimeout(this.#retry)
    this.#giveWay()
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#last.then(work)
    this.#last = turn.catch(() => {})
    return turn
  }

  async #poll(): Promise<void> {
    if (this.#isAwaited || this.#awaited !== null) return
    const look = await this.#look([])
    if (look === null || look === 'unseen') return
    if (look.fingerprint === this.#fingerprint) {
      this.#applied = look.snapshot
      return
    }
    // Not before the stream is where the rules changed: rows before it would be judged by rules that came later. If it
    // announces the change, it is applied there.
    if (this.#fingerprint !== null) await this.#untilPassed(look.fence)
    if (!this.#isAwaited && !this.#isStopped) await this.#apply(look)
  }

  async #untilPassed(fence: bigint): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const enough = new Promise<void>(resolve => {
      this.#giveWay = resolve
      timer = setTimeout(resolve, maxWaitMs)
      if (this.#isAwaited) resolve()
    })
    await Promise.race([this.#options.passed(fence).catch(() => enough), enough])
    clearTimeout(timer)
  }

  /** A look that sees this transaction, or nothing is judged any more. */
  async #lookFor(xid: number, isAnnounced: boolean): Promise<void> {
    if (this.#applied?.sees(xid)) return
    const { now, log, onUnreadable } = this.#options
    const beganMs = now()
    for (let pauseMs = firstPauseMs; !this.#isStopped; pauseMs = Math.min(2 * pauseMs, maxPauseMs)) {
      const mustSee = isAnnounced || now() < beganMs + describedWaitMs
      const look = await within(this.#look(mustSee ? [xid] : []), beganMs + maxLookMs - now())
      if (look !== null && look !== 'unseen') {
        await this.#apply(look)
        return
      }
      if (now() + pauseMs >= beganMs + (look === 'unseen' ? maxWaitMs : maxLookMs)) break
      await new Promise(resolve => setTimeout(resolve, pauseMs))
    }
    if (this.#isStopped) return
    this.#awaited = new Awaited()
    if (isAnnounced) this.#awaited.add(xid)
    log.warn('the catalog changed and cannot be read: nothing is sent, and subscriptions are refused, until it can be')
    onUnreadable()
    this.#tryAgain(this.#awaited)
  }

  #tryAgain(awaited: Awaited): void {
    if (this.#isStopped) return
    this.#retry = setTimeout(() => {
      void this.#inTurn(async () => {
        const look = await this.#look([])
        if (look === null || look === 'unseen' || !awaited.isSeenBy(look.snapshot)) {
          this.#tryAgain(awaited)
          return
        }
        await this.#apply(look)
        // More came while that was read.
        if (!awaited.isSeenBy(look.snapshot)) {
          this.#tryAgain(awaited)
          return
        }
        this.#awaited = null
        this.#options.log.info('the catalog has been read: subscriptions are taken again')
        this.#options.onReadAgain()
      })
    }, retryMs)
    this.#retry.unref()
  }

  async #apply(look: CatalogLook): Promise<void> {
    // The first counts as a change: someone may have subscribed before it.
    if (look.fingerprint !== this.#fingerprint) await this.#options.onChange()
    this.#fingerprint = look.fingerprint
    this.#applied = look.snapshot
  }

  /** @returns null when the database does not answer: it is asked again */
  async #look(sees: readonly number[]): Promise<CatalogLook | 'unseen' | null> {
    const { look, announcements, trouble, now, log } = this.#options
    const beganMs = now()
    try {
      await announcements.refresh()
      const found = await look(sees)
      this.#isWarned = false
      return found ?? 'unseen'
    } catch (error) {
      if (isAway(error)) trouble.noticed(error, beganMs)
      // Said once, until it works again.
      else if (!this.#isWarned) log.warn({ err: error }, 'could not read the catalog; trying again every second')
      this.#isWarned ||= !isAway(error)
      return null
    }
  }
}

/** Transactions that changed the catalog and that SQL does not show yet. */
class Awaited {
  readonly #xids = new Set<number>()
  /** Of more than are counted: all that were running before this one. */
  #all: number | null = null

  add(xid: number): void {
    this.#xids.add(xid)
    if (this.#xids.size <= maxAwaited) return
    for (const other of this.#xids) if (this.#all === null || isBefore(this.#all, other)) this.#all = other
    this.#xids.clear()
  }

  isSeenBy(snapshot: Snapshot): boolean {
    for (const xid of this.#xids) if (!snapshot.sees(xid)) return false
    return this.#all === null || isBefore(this.#all, low32(snapshot.xmin))
  }
}

async function within<T>(promise: Promise<T>, ms: number): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<null>(resolve => {
    timer = setTimeout(() => resolve(null), Math.max(0, ms))
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
