// The histories can fail: mistakes planted in the node, of the kinds they are there for, are noticed within a few of them.
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import type { Change } from '../../src/server/decode/change.ts'
import { MemoryRelay } from '../../src/server/relay/memory-relay.ts'
import { Audience } from '../../src/server/route/audience.ts'
import { OutcomeEncoder } from '../../src/server/route/outcome.ts'
import { Router } from '../../src/server/route/router.ts'
import { Window } from '../../src/server/route/window.ts'
import { Holds } from '../../src/server/subscribe/holds.ts'
import { MovedRows } from '../../src/server/subscribe/moved-rows.ts'
import { Reach } from '../../src/server/subscribe/reach.ts'
import type { History, Span } from './history.ts'
import { runHistories } from './run.ts'
import { Site } from './site.ts'

const seed = 7
/** From which history on each is looked for, instead of from one that shows it. `CAUGHT_FIRST=10` for all that come before: those before
 *  the tenth take Postgres long. */
const earliest = process.env.CAUGHT_FIRST
let site: Site

beforeAll(async () => {
  site = await Site.start()
})

afterAll(async () => {
  await site?.[Symbol.asyncDispose]()
})

afterEach(() => {
  vi.restoreAllMocks()
})

const { between, unseen } = MemoryRelay.prototype
const { applyMembership } = Router.prototype
const { atHead, missing } = MovedRows.prototype
const { apply, load } = Window.prototype
const { delta, changes } = OutcomeEncoder.prototype

/** Whoever has a window goes and comes back to it again and again: as it is drawn, one history in fifty has it matter. */
const withWindowsAway = (history: History): History => ({
  ...history,
  subscribers: history.subscribers.map(subscriber =>
    subscriber.window === undefined ? subscriber : { ...subscriber, joins: 0, away: spans, slow: [] },
  ),
})
const spans = Array.from({ length: 8 }, (_, i): Span => [4 * i + 1, 4 * i + 3])

/** With the number of the first history that is played: each shows it at once, or one of the next. */
const mistakes: readonly [string, number, () => void, ((history: History) => History)?][] = [
  [
    'old rows judged by the memberships after the commit',
    13,
    () => {
      vi.spyOn(Audience.prototype, 'at').mockImplementation(function (this: Audience) {
        return this.now
      })
    },
  ],
  [
    'one change of a membership in ten not counted in',
    12,
    () => {
      let seen = 0
      vi.spyOn(Router.prototype, 'applyMembership').mockImplementation(function (this: Router, change: Change, writer) {
        seen += 1
        if (seen % 10 !== 0) applyMembership.call(this, change, writer)
      })
    },
  ],
  [
    'rows that a grant or revocation moves not looked for',
    12,
    () => {
      vi.spyOn(Holds.prototype, 'flipped').mockImplementation(() => {})
    },
  ],
  [
    'a row of a backfill left out',
    14,
    () => {
      vi.spyOn(MovedRows.prototype, 'atHead').mockImplementation(function (this: MovedRows) {
        return new Map([...atHead.call(this)].slice(1))
      })
    },
  ],
  [
    'one of several keys that changed hands not read',
    27,
    () => {
      vi.spyOn(MovedRows.prototype, 'missing').mockImplementation(function (this: MovedRows, before, touched) {
        const wanted = missing.call(this, before, touched)
        return wanted?.map(rows => ('keys' in rows ? { ...rows, keys: rows.keys.slice(0, 1) } : rows)) ?? null
      })
    },
  ],
  [
    "a change in the middle of a chain taken for nobody's concern",
    12,
    () => {
      vi.spyOn(Router.prototype, 'reaching').mockImplementation(() => {})
    },
  ],
  [
    'what a grant reaches in the middle of a chain never read',
    12,
    () => {
      vi.spyOn(Reach.prototype, 'follow').mockImplementation(() => {})
    },
  ],
  [
    'an LSN fence instead of the splice',
    11,
    () => {
      vi.spyOn(MemoryRelay.prototype, 'unseen').mockImplementation(function (this: MemoryRelay, ...asked) {
        return unseen.call(this, ...asked).slice(0, 0)
      })
    },
  ],
  [
    'a commit skipped when somebody comes back',
    13,
    () => {
      vi.spyOn(MemoryRelay.prototype, 'between').mockImplementation(function (this: MemoryRelay, from, to) {
        return between.call(this, from, to).slice(1)
      })
    },
  ],
  [
    'deletes of live queries not told',
    13,
    () => {
      vi.spyOn(OutcomeEncoder.prototype, 'delta').mockImplementation(function (
        this: OutcomeEncoder,
        query,
        truncated,
        all,
      ) {
        return delta.call(
          this,
          query,
          truncated,
          all.filter(({ op }) => op !== 'delete'),
        )
      })
    },
  ],
  [
    'a window that ran dry taken for one that has all rows',
    61,
    () => {
      vi.spyOn(Window.prototype, 'apply').mockImplementation(function (this: Window, ...asked) {
        return apply.call(this, ...asked) ?? []
      })
    },
  ],
  [
    'rows before the bound of a window put at its end',
    10,
    () => {
      vi.spyOn(Window.prototype, 'load').mockImplementation(function (this: Window, read, lsn) {
        return load.call(this, { ...read, rows: read.rows.toReversed() }, lsn)
      })
    },
  ],
  [
    'a window through grants and revocations as if nothing had moved',
    11,
    () => {
      vi.spyOn(Window.prototype, 'load').mockImplementation(function (this: Window, read, lsn) {
        const isNew = this.rows.length === 0
        const changes = load.call(this, read, lsn)
        return isNew ? changes : []
      })
    },
  ],
  [
    'who comes back to a window told nothing',
    10,
    () => {
      vi.spyOn(Window.prototype, 'since').mockImplementation(() => [])
    },
    withWindowsAway,
  ],
  [
    'an event of several told twice',
    11,
    () => {
      vi.spyOn(OutcomeEncoder.prototype, 'changes').mockImplementation(function (this: OutcomeEncoder, ...asked) {
        const events = changes.call(this, ...asked)
        return events.length > 1 ? [...events, events[0]!] : events
      })
    },
  ],
]

test.each(mistakes)('%s is noticed', { timeout: 120_000 }, async (_, first, plant, alter) => {
  plant()
  const { failed, passed } = await runHistories(site, {
    seed,
    first: earliest === undefined ? first : Number(earliest),
    count: 80,
    batch: 3,
    atOnce: 3,
    patienceMs: 1000,
    ...(alter === undefined ? {} : { alter }),
  })
  expect(failed, `${passed} histories passed`).not.toBe(null)
  console.log(`after ${passed}: ${failed!.history.name}: ${failed!.played.failure!.slice(0, 200)}`)
})
