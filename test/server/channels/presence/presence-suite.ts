// What presence promises, wherever it is kept.
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import type {
  PresenceDiff,
  PresenceDraft,
  PresenceEntry,
  PresenceStore,
} from '../../../../src/server/channels/presence/presence.ts'
import type { PresenceRule } from '../../../../src/server/channels/rules.ts'
import { until } from '../../../support/redis-process.ts'

/** Two nodes, which may be one. */
export interface PresenceWorld extends AsyncDisposable {
  readonly a: PresenceStore
  readonly b: PresenceStore
  /** What everybody is told of a channel, from when this resolves. */
  hear(channel: string): Promise<Heard>
}

export const rule: PresenceRule = {
  graceMs: 400,
  diffMs: 20,
  listUpTo: 1000,
  maxMetaBytes: 1000,
  boundToSubject: true,
}

export const draft = (connection: string, user = connection, meta = '{}'): PresenceDraft => ({
  key: user,
  user,
  connection,
  meta,
})

export const newChannel = (): string => `private/${randomUUID()}`

/** Diffs of one channel, in order, and what they add up to. */
export class Heard {
  readonly diffs: PresenceDiff[] = []

  take(diff: PresenceDiff): void {
    this.diffs.push(diff)
  }

  get joined(): PresenceEntry[] {
    return this.diffs.flatMap(diff => diff.joined)
  }

  get updated(): PresenceEntry[] {
    return this.diffs.flatMap(diff => diff.updated)
  }

  get left(): PresenceEntry[] {
    return this.diffs.flatMap(diff => diff.left)
  }

  /** By ref, of the last epoch. */
  get here(): Map<string, PresenceEntry> {
    const here = new Map<string, PresenceEntry>()
    let epoch = ''
    for (const diff of this.diffs) {
      if (diff.epoch !== epoch) here.clear()
      epoch = diff.epoch
      for (const entry of [...diff.joined, ...diff.updated]) here.set(entry.ref, entry)
      for (const { ref } of diff.left) here.delete(ref)
    }
    return here
  }

  async until(condition: (heard: Heard) => boolean, what: string): Promise<void> {
    await until(async () => condition(this), what)
  }
}

export const connectionsOf = (entries: Iterable<PresenceEntry>): string[] =>
  Array.from(entries, ({ connection }) => connection).sort()

export function promisesOfPresence(start: () => Promise<PresenceWorld>): void {
  const room = async (world: PresenceWorld) => {
    const channel = newChannel()
    return { channel, heard: await world.hear(channel) }
  }

  test('who tracks is told to all as joined, with what it tells of itself, and is in the list of every node', async () => {
    await using world = await start()
    const { channel, heard } = await room(world)
    expect(await world.b.list(channel)).toMatchObject({ count: 0, entries: [] })
    const meta = '{"name":"Zoë","lines":"a\\nb"}'
    const beganMs = Date.now()
    await world.a.track(channel, { key: 'as ü', user: null, connection: 'c 1', meta }, rule)
    await heard.until(({ diffs }) => diffs.length === 1, 'the diff')
    const [entry] = heard.joined
    expect(entry).toEqual({
      ref: expect.any(String),
      key: 'as ü',
      user: null,
      connection: 'c 1',
      meta,
      sinceMs: expect.any(Number),
    })
    expect(Math.abs(entry!.sinceMs - beganMs)).toBeLessThan(5000)
    expect(heard.diffs[0]).toMatchObject({ count: 1, updated: [], left: [] })
    const list = await world.b.list(channel)
    expect(list).toEqual({ epoch: heard.diffs[0]!.epoch, seq: heard.diffs[0]!.seq, count: 1, entries: [entry] })
  })

  test('who tracks again is updated under the same ref, and telling the same again is no change', async () => {
    await using world = await start()
    const { channel, heard } = await room(world)
    await world.a.track(channel, draft('c1'), rule)
    await world.a.track(channel, draft('c1', 'c1', '{"n":1}'), rule)
    await world.a.track(channel, draft('c1', 'c1', '{"n":1}'), rule)
    await world.a.track(channel, draft('last'), rule)
    await heard.until(({ here }) => here.size === 2, 'both')
    expect(heard.updated).toEqual([{ ...heard.joined[0]!, meta: '{"n":1}' }])
    expect(heard.diffs).toHaveLength(3)
  })

  test('changes of a while are one diff, and who came and went in it is in none', async () => {
    await using world = await start()
    const { channel, heard } = await room(world)
    const { b } = world
    await b.track(channel, draft('leaves'), rule)
    await b.track(channel, draft('changes'), rule)
    await heard.until(({ diffs }) => diffs.length === 2, 'both')
    const before = heard.diffs.length
    await Promise.all([
      b.untrack(channel, 'leaves', 'gone'),
      b.track(channel, draft('changes', 'changes', '1'), rule),
      b.track(channel, draft('changes', 'changes', '2'), rule),
      b.track(channel, draft('stays'), rule),
      b.track(channel, draft('comes'), rule),
      b.untrack(channel, 'comes', 'gone'),
      b.track(channel, draft('breaks'), rule),
      b.untrack(channel, 'breaks', 'broken'),
    ])
    await b.track(channel, draft('last'), rule)
    await heard.until(({ here }) => here.size === 3, 'the last')
    const [diff] = heard.diffs.slice(before)
    expect(connectionsOf(diff!.joined)).toEqual(['stays'])
    expect(diff!.updated).toMatchObject([{ connection: 'changes', meta: '2' }])
    expect(connectionsOf(diff!.left)).toEqual(['leaves'])
    expect(diff!.count).toBe(2)
    expect(heard.diffs).toHaveLength(before + 2)
  })

  test('diffs are numbered without a hole, and lead to the list', async () => {
    await using world = await start()
    const { channel, heard } = await room(world)
    const asked: Promise<void>[] = []
    for (let n = 0; n < 120; n += 1) {
      const node = n % 2 === 0 ? world.a : world.b
      asked.push(node.track(channel, draft(`c${n}`), rule))
      if (n % 3 === 0) asked.push(node.track(channel, draft(`c${n}`, `c${n}`, '7'), rule))
      if (n % 5 === 0) asked.push(node.untrack(channel, `c${n}`, 'gone'))
      if (n % 30 === 0) await sleep(30)
    }
    await Promise.all(asked)
    const list = await world.a.list(channel)
    await heard.until(({ diffs }) => diffs.at(-1)?.seq === list.seq, 'the last diff')
    const numbers = heard.diffs.map(({ seq }) => seq)
    expect(numbers).toEqual(numbers.map((_, place) => numbers[0]! + BigInt(place)))
    expect(list.count).toBe(96)
    expect([...heard.here.values()].sort((x, y) => (x.ref < y.ref ? -1 : 1))).toEqual(list.entries)
    expect(heard.diffs.at(-1)!.count).toBe(96)
  })

  test('an untrack that follows a track at once wins, and a track that follows an untrack', async () => {
    await using world = await start()
    const { channel, heard } = await room(world)
    for (let round = 0; round < 40; round += 1) {
      const asked = [world.a.track(channel, draft('c1', 'c1', String(round)), rule)]
      // Before it is sent, while it is on its way, and after.
      if (round % 4 > 0) await sleep((round % 4) * 10)
      asked.push(world.a.untrack(channel, 'c1', 'gone'))
      if (round % 3 === 0) await sleep(round % 25)
      if (round % 2 === 1) asked.push(world.a.track(channel, draft('c1', 'c1', `again ${round}`), rule))
      await Promise.all(asked)
      const { entries } = await world.b.list(channel)
      expect(entries.map(({ meta }) => meta)).toEqual(round % 2 === 1 ? [`again ${round}`] : [])
    }
    await heard.until(({ here }) => here.size === 1, 'the last')
  })

  test('two connections of one user are two entries under one key, and one leaves alone', async () => {
    await using world = await start()
    const { channel, heard } = await room(world)
    await world.a.track(channel, draft('tab1', 'ann'), rule)
    await world.b.track(channel, draft('tab2', 'ann'), rule)
    const { entries } = await world.a.list(channel)
    expect(connectionsOf(entries)).toEqual(['tab1', 'tab2'])
    expect(new Set(entries.map(({ ref }) => ref)).size).toBe(2)
    await world.a.untrack(channel, 'tab1', 'gone')
    await heard.until(({ here }) => here.size === 1, 'the leave')
    expect(heard.left).toMatchObject([{ connection: 'tab1', key: 'ann' }])
  })

  test('who breaks and comes back within the grace, on any node, has not left: same ref, told as another connection', async () => {
    await using world = await start()
    const { channel, heard } = await room(world)
    await world.a.track(channel, draft('old', 'ann', '{"n":1}'), rule)
    // At once: a break does not wait to be gathered.
    void world.a.untrack(channel, 'old', 'broken')
    await world.b.track(channel, draft('new', 'ann', '{"n":1}'), rule)
    await heard.until(({ updated }) => updated.length === 1, 'the update')
    await sleep(2 * rule.graceMs)
    expect((await world.b.list(channel)).entries).toEqual([{ ...heard.joined[0], connection: 'new' }])
    expect(heard.joined).toHaveLength(1)
    expect(heard.updated).toEqual([{ ...heard.joined[0], connection: 'new' }])
    expect(heard.left).toEqual([])
    await world.b.untrack(channel, 'new', 'gone')
    await heard.until(({ left }) => left.length === 1, 'the leave')
    expect(heard.left[0]!.ref).toBe(heard.joined[0]!.ref)
  })

  test('who comes back and goes at once has gone at once, also before it was told that it is back', async () => {
    await using world = await start()
    const { channel, heard } = await room(world)
    const long = { ...rule, graceMs: 60_000 }
    await world.a.track(channel, draft('old', 'ann'), long)
    await world.a.track(channel, draft('stays', 'bob'), long)
    await world.a.untrack(channel, 'old', 'broken')
    void world.b.track(channel, draft('new', 'ann'), long)
    await world.b.untrack(channel, 'new', 'gone')
    await heard.until(({ here }) => here.size === 1, 'the leave')
    expect(connectionsOf((await world.a.list(channel)).entries)).toEqual(['stays'])
    expect(heard.left).toMatchObject([{ key: 'ann', ref: heard.joined[0]!.ref }])
    expect(heard.updated).toEqual([])
    // Nobody is there for who comes and goes in the same way, but did not break.
    void world.b.track(channel, draft('short', 'ann'), long)
    await world.b.untrack(channel, 'short', 'gone')
    await world.b.track(channel, draft('last'), long)
    await heard.until(({ here }) => here.size === 2, 'the last')
    expect(heard.left).toHaveLength(1)
    expect(connectionsOf(heard.joined)).toEqual(['last', 'old', 'stays'])
  })

  test('nobody else takes the place of who broke: not another user, not under another key; of two that broke each is taken once', async () => {
    await using world = await start()
    const { channel, heard } = await room(world)
    await world.a.track(channel, draft('tab1', 'ann'), rule)
    await world.a.track(channel, draft('tab2', 'ann'), rule)
    await Promise.all([world.a.untrack(channel, 'tab1', 'broken'), world.a.untrack(channel, 'tab2', 'broken')])
    await Promise.all([
      world.b.track(channel, { ...draft('other user', 'bob'), key: 'ann' }, rule),
      world.b.track(channel, { ...draft('other key', 'ann'), key: 'x' }, rule),
    ])
    await Promise.all(['tab3', 'tab4', 'tab5'].map(tab => world.b.track(channel, draft(tab, 'ann'), rule)))
    await heard.until(({ here, updated }) => here.size === 5 && updated.length === 2, 'all')
    await sleep(2 * rule.graceMs)
    expect(heard.left).toEqual([])
    expect(heard.updated).toHaveLength(2)
    expect(new Set(heard.updated.map(({ ref }) => ref))).toEqual(
      new Set(heard.joined.slice(0, 2).map(({ ref }) => ref)),
    )
    expect((await world.a.list(channel)).count).toBe(5)
  })

  test('who breaks and does not come back leaves once, when the grace is over; without a grace at once', async () => {
    await using world = await start()
    const { channel, heard } = await room(world)
    await world.a.track(channel, draft('c1'), rule)
    await world.a.track(channel, draft('no grace'), { ...rule, graceMs: 0 })
    await Promise.all([world.a.untrack(channel, 'no grace', 'broken'), world.a.untrack(channel, 'c1', 'broken')])
    const brokeMs = performance.now()
    await heard.until(({ left }) => left.length === 1, 'the leave at once')
    expect(heard.left).toMatchObject([{ connection: 'no grace' }])
    expect((await world.b.list(channel)).count).toBe(1)
    await heard.until(({ left }) => left.length === 2, 'the leave')
    expect(performance.now() - brokeMs).toBeGreaterThan(rule.graceMs - 50)
    await world.a.untrack(channel, 'c1', 'gone')
    expect(await world.b.list(channel)).toMatchObject({ count: 0, entries: [] })
    expect(heard.left).toHaveLength(2)
  })

  test('who broke is taken out within the grace when it must go, and comes back on the same connection', async () => {
    await using world = await start()
    const { channel, heard } = await room(world)
    const long = { ...rule, graceMs: 60_000 }
    await world.a.track(channel, draft('kicked'), long)
    await world.a.track(channel, draft('back'), long)
    await Promise.all([world.a.untrack(channel, 'kicked', 'broken'), world.a.untrack(channel, 'back', 'broken')])
    await world.a.untrack(channel, 'kicked', 'gone')
    await world.a.track(channel, draft('back'), long)
    await heard.until(({ left }) => left.length === 1, 'the leave')
    expect(connectionsOf(heard.left)).toEqual(['kicked'])
    expect(heard.updated).toEqual([])
    expect(connectionsOf((await world.b.list(channel)).entries)).toEqual(['back'])
  })

  test('the list comes in pages by ref', async () => {
    await using world = await start()
    const { channel } = await room(world)
    const names = Array.from({ length: 25 }, (_, n) => `c${n}`)
    await Promise.all(names.map((name, n) => (n % 2 ? world.a : world.b).track(channel, draft(name), rule)))
    const all = (await world.a.list(channel)).entries
    expect(all.map(({ ref }) => ref)).toEqual(all.map(({ ref }) => ref).sort())
    const paged: PresenceEntry[] = []
    for (let after: string | null = null; ; ) {
      const page = await world.b.list(channel, { after, limit: 10 })
      expect(page.count).toBe(25)
      if (page.entries.length === 0) break
      expect(page.entries.length).toBeLessThanOrEqual(10)
      paged.push(...page.entries)
      after = page.entries.at(-1)!.ref
    }
    expect(paged).toEqual(all)
    expect(connectionsOf(paged)).toEqual([...names].sort())
  })

  test('a node that closes takes all of its own out, and those who broke keep their grace', async () => {
    await using world = await start()
    const rooms = await Promise.all(Array.from({ length: 30 }, () => room(world)))
    await Promise.all(
      rooms.flatMap(({ channel }) =>
        ['c1', 'c2', 'broke'].map(name => world.a.track(channel, draft(name), { ...rule, graceMs: 60_000 })),
      ),
    )
    await Promise.all(rooms.map(({ channel }) => world.a.untrack(channel, 'broke', 'broken')))
    await world.a.close()
    for (const { heard, channel } of rooms) {
      await heard.until(({ left }) => left.length === 2, 'the leaves')
      expect(connectionsOf(heard.left)).toEqual(['c1', 'c2'])
      expect(connectionsOf((await world.b.list(channel)).entries)).toEqual(['broke'])
    }
    await expect(world.a.track(rooms[0]!.channel, draft('late'), rule)).rejects.toMatchObject({ code: 'UNAVAILABLE' })
  })
}
