import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { PresenceDiff, PresenceEntry, PresenceList } from '../../../../src/server/channels/presence/presence.ts'
import { type MirroredChange, PresenceMirror } from '../../../../src/server/channels/presence/presence-mirror.ts'

const entryOf = (ref: string, meta = ''): PresenceEntry => ({
  ref,
  key: ref,
  user: ref,
  connection: `of ${ref}`,
  meta,
  sinceMs: 0,
})

/** The truth, and how far a pub/sub and a store that are slow and lose things have told it. */
class Channel {
  epoch = 'e0'
  seq = 0n
  readonly entries = new Map<string, PresenceEntry>()

  diff(change: { join?: string[]; update?: string[]; leave?: string[] }): PresenceDiff {
    const left = (change.leave ?? []).flatMap(ref => this.entries.get(ref) ?? [])
    for (const { ref } of left) this.entries.delete(ref)
    const joined = (change.join ?? []).filter(ref => !this.entries.has(ref)).map(ref => entryOf(ref))
    for (const entry of joined) this.entries.set(entry.ref, entry)
    const updated = (change.update ?? []).flatMap(ref => {
      const entry = this.entries.get(ref)
      return entry === undefined ? [] : [{ ...entry, meta: `${entry.meta}+` }]
    })
    for (const entry of updated) this.entries.set(entry.ref, entry)
    this.seq += 1n
    return { epoch: this.epoch, seq: this.seq, joined, updated, left, count: this.entries.size }
  }

  /** Numbers begin anew. */
  lose(keep: (ref: string) => boolean): void {
    this.epoch = `e${Number(this.epoch.slice(1)) + 1}`
    this.seq = 0n
    for (const ref of [...this.entries.keys()]) if (!keep(ref)) this.entries.delete(ref)
  }

  list(limit: number): PresenceList {
    const entries = [...this.entries.values()].sort((x, y) => (x.ref < y.ref ? -1 : 1))
    return { epoch: this.epoch, seq: this.seq, count: entries.length, entries: entries.slice(0, limit) }
  }
}

interface Asked {
  /** Answers with what holds now, or was answered. */
  answer(list?: PresenceList): void
  fail(): void
  readonly limit: number
}

function world(listUpTo: number) {
  const channel = new Channel()
  const asked: Asked[] = []
  const timers = new Set<() => void>()
  const changes: MirroredChange[] = []
  /** What whoever only heard the changes knows. */
  const told = { here: null as Map<string, PresenceEntry> | null, count: null as number | null }
  const clock = { nowMs: 0 }
  const mirror = new PresenceMirror({
    channel: 'c',
    rule: { listUpTo },
    store: {
      list: (_, page) =>
        new Promise((resolve, reject) => {
          asked.push({
            answer: list => resolve(list ?? channel.list(page!.limit)),
            fail: () => reject(new Error('away')),
            limit: page!.limit,
          })
        }),
    },
    onChange: change => {
      changes.push(change)
      told.count = change.count
      if (change.kind === 'counted') told.here = null
      else if (change.kind === 'here') told.here = new Map(change.here.map(entry => [entry.ref, entry]))
      else {
        for (const { ref } of change.left) told.here!.delete(ref)
        for (const entry of [...change.joined, ...change.updated]) told.here!.set(entry.ref, entry)
      }
    },
    now: () => clock.nowMs,
    random: () => 1,
    later: (run, ms) => {
      const due = (): void => {
        clock.nowMs += ms
        run()
      }
      timers.add(due)
      return () => timers.delete(due)
    },
  })
  return {
    channel,
    asked,
    changes,
    told,
    mirror,
    clock,
    timers,
    async settle(): Promise<void> {
      for (let turn = 0; turn < 5; turn += 1) await Promise.resolve()
    },
    async answerNext(list?: PresenceList): Promise<void> {
      asked.shift()!.answer(list)
      await this.settle()
    },
    runTimers(): void {
      for (const due of [...timers]) {
        timers.delete(due)
        due()
      }
    },
    /** Until nothing is asked or awaited. */
    async calm(): Promise<void> {
      for (let turn = 0; turn < 100 && asked.length + timers.size > 0; turn += 1) {
        for (const each of asked.splice(0)) each.answer()
        await this.settle()
        this.runTimers()
      }
      expect(asked.length + timers.size).toBe(0)
    },
  }
}

const sorted = (entries: Iterable<PresenceEntry> | null | undefined): PresenceEntry[] =>
  [...(entries ?? [])].sort((x, y) => (x.ref < y.ref ? -1 : 1))

test.each(['a diff', 'a list'])(
  'who is listed under another key, as %s says, has left under the old one and come under the new',
  async how => {
    const all = world(10)
    const { channel, mirror, changes, told } = all
    channel.diff({ join: ['a', 'b', 'c'] })
    mirror.interrupted()
    await all.answerNext()
    const renamed = { ...channel.entries.get('a')!, key: 'another' }
    const joining = channel.diff({ join: ['d'], update: ['b'], leave: ['c'] })
    channel.entries.set('a', renamed)
    if (how === 'a diff') mirror.take({ ...joining, updated: [...joining.updated, renamed] })
    else {
      mirror.interrupted()
      await all.calm()
    }
    const refs = (entries: readonly PresenceEntry[]): string[] => entries.map(({ ref, key }) => `${ref} ${key}`).sort()
    const steps = changes.flatMap(change => (change.kind === 'changed' ? [change] : []))
    expect(steps.map(({ joined, updated, left, count }) => [refs(joined), refs(updated), refs(left), count])).toEqual([
      [[], [], ['a a', 'c c'], 1],
      [['a another', 'd d'], ['b b'], [], 3],
    ])
    expect(sorted(told.here?.values())).toEqual(channel.list(10).entries)
  },
)

test('a list and the diffs behind it are what is here, and each diff is told as it is', async () => {
  const { channel, mirror, changes, answerNext, ...rest } = world(10)
  const settle = rest.settle
  channel.diff({ join: ['a'] })
  expect(mirror.here()).toBeNull()
  mirror.take(channel.diff({ join: ['b'] }))
  expect(rest.asked).toHaveLength(0)
  mirror.interrupted()
  rest.asked.shift()!.answer()
  await settle()
  expect(changes).toEqual([{ kind: 'here', here: [entryOf('a'), entryOf('b')], count: 2 }])
  const diff = channel.diff({ join: ['c'], update: ['a'], leave: ['b'] })
  mirror.take(diff)
  mirror.take(diff)
  const { joined, updated, left, count } = diff
  expect(changes.slice(1)).toEqual([{ kind: 'changed', joined, updated, left, count }])
  expect(mirror.here()).toEqual({ entries: [entryOf('a', '+'), entryOf('c')], count: 2 })
  expect(rest.asked).toHaveLength(0)
})

test('what comes while the list is on its way is laid over it where it is newer', async () => {
  const w = world(10)
  w.mirror.interrupted()
  const [first, second, third] = [
    w.channel.diff({ join: ['a'] }),
    w.channel.diff({ join: ['b'] }),
    w.channel.diff({ leave: ['a'] }),
  ]
  const list = { ...w.channel.list(10), seq: 2n, count: 2, entries: [entryOf('a'), entryOf('b')] }
  for (const diff of [first, second, third]) w.mirror.take(diff)
  await w.answerNext(list)
  expect(w.changes.map(({ kind }) => kind)).toEqual(['here', 'changed'])
  expect(w.mirror.here()?.entries).toEqual([entryOf('b')])
  expect(w.asked).toHaveLength(0)
})

test('[P4] a hole is closed by another list, and told as one change; a new epoch too', async () => {
  const w = world(10)
  w.channel.diff({ join: ['a', 'b', 'c'] })
  w.mirror.interrupted()
  await w.answerNext()
  w.channel.diff({ leave: ['b'], update: ['c'] })
  w.mirror.take(w.channel.diff({ join: ['d'] }))
  expect(w.changes).toHaveLength(1)
  w.runTimers()
  await w.answerNext()
  const changed = {
    kind: 'changed',
    joined: [entryOf('d')],
    updated: [entryOf('c', '+')],
    left: [entryOf('b')],
    count: 3,
  }
  expect(w.changes.slice(1)).toEqual([changed])
  w.channel.lose(ref => ref === 'a')
  w.mirror.take(w.channel.diff({ join: ['d'] }))
  w.runTimers()
  await w.answerNext()
  expect(w.changes.slice(2)).toEqual([
    { kind: 'changed', joined: [], updated: [], left: [entryOf('c', '+')], count: 2 },
  ])
})

test('[P7] above the bound only the count is kept and told; below it all are listed again, not at once', async () => {
  const w = world(2)
  w.channel.diff({ join: ['a', 'b'] })
  w.mirror.interrupted()
  await w.answerNext()
  w.mirror.take(w.channel.diff({ join: ['c', 'd'] }))
  w.mirror.take(w.channel.diff({ update: ['a'] }))
  // Counts need no list, whatever was lost.
  w.channel.diff({ join: ['x'] })
  w.mirror.take(w.channel.diff({ join: ['e'] }))
  expect(w.changes.slice(1)).toEqual([
    { kind: 'counted', count: 4 },
    { kind: 'counted', count: 6 },
  ])
  expect(w.mirror.here()).toEqual({ entries: null, count: 6 })
  expect(w.timers.size + w.asked.length).toBe(0)
  w.mirror.take(w.channel.diff({ leave: ['a', 'b', 'c', 'x'] }))
  expect(w.asked).toHaveLength(0)
  w.runTimers()
  expect(w.clock.nowMs).toBe(1000)
  expect(w.asked[0]!.limit).toBe(3)
  await w.answerNext()
  expect(w.changes.at(-1)).toEqual({ kind: 'here', here: [entryOf('d'), entryOf('e')], count: 2 })
})

test('[P7] lists are asked for at most four times a second, and less often while they fail', async () => {
  const w = world(10)
  const gaps: number[] = []
  w.mirror.interrupted()
  for (let attempt = 0; attempt < 9; attempt += 1) {
    const beganMs = w.clock.nowMs
    w.asked.shift()!.fail()
    await w.settle()
    w.mirror.interrupted()
    w.runTimers()
    gaps.push(w.clock.nowMs - beganMs)
  }
  expect(gaps).toEqual([250, 500, 1000, 2000, 4000, 8000, 8000, 8000, 8000])
  await w.answerNext()
  w.mirror.interrupted()
  expect(w.asked).toHaveLength(0)
  w.runTimers()
  expect(w.asked).toHaveLength(1)
})

test('[P7] what waits for a list is bounded: past it the list is asked for once more', async () => {
  const w = world(5000)
  w.mirror.interrupted()
  const list = w.channel.list(1)
  for (let n = 0; n < 2500; n += 1) w.mirror.take(w.channel.diff({ join: [`r${n}`] }))
  await w.answerNext(list)
  await w.calm()
  expect(w.mirror.here()?.count).toBe(2500)
  expect(w.told.here?.size).toBe(2500)
})

test('a mirror that is closed tells nothing and asks nothing', async () => {
  const w = world(10)
  w.mirror.interrupted()
  w.mirror.close()
  await w.answerNext()
  w.mirror.take(w.channel.diff({ join: ['a'] }))
  w.mirror.interrupted()
  expect(w.changes).toEqual([])
  expect(w.asked.length + w.timers.size).toBe(0)
})

const refs = fc.subarray(['a', 'b', 'c', 'd', 'e', 'f'])
const sometimes = fc.nat({ max: 3 }).map(n => n === 0)
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('change' as const), join: refs, update: refs, leave: refs }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('hear' as const), loses: sometimes, repeats: sometimes }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('look' as const) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('answer' as const), fails: sometimes }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('time' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('interrupt' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('lose' as const), keep: refs }) },
)

test.each([2, 4, 100])(
  '[P4] any diffs with losses, repeats and lists in between end at the true list, whoever only heard the changes too; listed: %d',
  listUpTo =>
    fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 80, size: 'max' }), fc.boolean(), async (steps, isInterrupted) => {
        const w = world(listUpTo)
        w.mirror.interrupted()
        const underway: PresenceDiff[] = []
        const heard: PresenceDiff[] = []
        /** Taken by the store, and not answered yet. */
        const looked: PresenceList[] = []
        for (const each of steps) {
          if (each.do === 'change') underway.push(w.channel.diff(each))
          else if (each.do === 'hear') {
            const diff = underway.shift()
            if (diff !== undefined && !each.loses) {
              w.mirror.take(diff)
              heard.push(diff)
            }
            if (each.repeats && heard.length > 0) w.mirror.take(heard.at(-3) ?? heard[0]!)
          } else if (each.do === 'look') {
            if (w.asked.length > looked.length) looked.push(w.channel.list(listUpTo + 1))
          } else if (each.do === 'answer') {
            if (w.asked.length > 0 && each.fails) {
              looked.shift()
              w.asked.shift()!.fail()
            } else if (looked.length > 0) w.asked.shift()!.answer(looked.shift()!)
            await w.settle()
          } else if (each.do === 'time') w.runTimers()
          else if (each.do === 'interrupt') w.mirror.interrupted()
          else w.channel.lose(ref => each.keep.includes(ref))
        }
        // Either the last diffs come, or it is known that some may not have.
        if (isInterrupted) w.mirror.interrupted()
        else for (const diff of [...underway, w.channel.diff({})]) w.mirror.take(diff)
        for (const list of looked) await w.answerNext(list)
        await w.calm()
        const truth = w.channel.list(100)
        const here = w.mirror.here()!
        expect(here.count).toBe(truth.count)
        expect(w.told.count).toBe(truth.count)
        const isListed = truth.count <= listUpTo
        expect(here.entries === null ? null : sorted(here.entries)).toEqual(isListed ? truth.entries : null)
        expect(w.told.here === null ? null : sorted(w.told.here.values())).toEqual(isListed ? truth.entries : null)
        w.mirror.close()
      }),
      { numRuns: 400 },
    ),
)
