// Presence on Supabase's wire, judged by what its clients hold after it.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Json } from '../../../../src/protocol/messages.ts'
import { changeJson, hereJson } from '../../../../src/server/channels/event-json.ts'
import type { PresenceEntry } from '../../../../src/server/channels/presence/presence.ts'
import { PresenceTold, trackFrameOf } from '../../../../src/server/deliver/phoenix/presence.ts'
import { Outgoing } from '../../../../src/server/subscribe/subscription.ts'
import { type FedClient, type FedKind, fedKinds, fedTopic, type Listed } from './support/fed-clients.ts'

const topic = `realtime:${fedTopic}`
const ids = { id: 1, ref: 7 }

const here = (entries: readonly PresenceEntry[]): Outgoing =>
  new Outgoing('presence', hereJson(entries, entries.length), null)
const counted = (count: number): Outgoing => new Outgoing('presence', hereJson(null, count), null)
const changed = (change: Partial<Parameters<typeof changeJson>[0]>, count: number): Outgoing =>
  new Outgoing('presence', changeJson({ joined: [], updated: [], left: [], ...change }, count), null)

const entryOf = (ref: string, key: string, meta: Json = {}): PresenceEntry => ({
  ref,
  key,
  user: null,
  connection: `c-${ref}`,
  meta: JSON.stringify(meta),
  sinceMs: 0,
})

/** What clients are to hold, in the order of refs. */
function listOf(entries: Iterable<PresenceEntry>): Listed {
  const lists: Record<string, { [name: string]: unknown }[]> = Object.create(null)
  for (const { ref, key, meta } of entries) {
    const parsed = JSON.parse(meta) as Json
    const isMap = typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed)
    const told: { [name: string]: unknown } = isMap ? { ...parsed } : { meta: parsed }
    delete told.phx_ref
    delete told.phx_ref_prev
    lists[shown(key)] = [...(lists[shown(key)] ?? []), { ...told, presence_ref: ref }]
  }
  return lists
}

const shown = (key: string): string =>
  key in {} ? `%${key.charCodeAt(0).toString(16).toUpperCase()}${key.slice(1)}` : key

/** Text that is equal where everything is, own names like `__proto__` among them. */
function textOf(listed: Listed): string {
  const sorted = Object.getOwnPropertyNames(listed).map(key => [
    key,
    [...listed[key]!].sort((a, b) => (String(a.presence_ref) < String(b.presence_ref) ? -1 : 1)).map(canonical),
  ])
  return JSON.stringify(sorted.sort(([a], [b]) => (String(a) < String(b) ? -1 : 1)))
}

function canonical(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(canonical)
  const object = value as Record<string, unknown>
  return Object.getOwnPropertyNames(object)
    .sort()
    .map(name => [name, canonical(object[name])])
}

const byName = (kinds: readonly FedKind[]): [string, FedKind][] =>
  kinds.map(kind => [`${kind.name}, ${kind.vsn}`, kind])

/** Names that clients give a meaning of their own; the last two change what an object is, where it is built by assignment. */
const metaNames = fc.constantFrom('name', 'at', 'metas', 'phx_ref', 'phx_ref_prev', 'meta', '__proto__', 'constructor')
const metas = fc.oneof(
  fc.dictionary(metaNames, fc.jsonValue({ maxDepth: 2 }), { maxKeys: 3 }),
  fc.jsonValue({ maxDepth: 1 }),
) as fc.Arbitrary<Json>
const keys = fc.constantFrom('a', 'b', '1', 'ü "\\', '__proto__', 'constructor', 'toString', 'hasOwnProperty', 'metas')

type Step =
  /** Who comes, tells something else and goes, told in one event. */
  | { do: 'change'; come: { key: string; meta: Json }[]; update: { at: number; meta: Json }[]; go: number[] }
  /** The same, which the client misses: it is told anew who is here. */
  | { do: 'miss'; held: 'same socket' | 'older' | 'unknown'; missed: Step & { do: 'change' } }
  | { do: 'count' }

const changes: fc.Arbitrary<Step & { do: 'change' }> = fc.record({
  do: fc.constant('change'),
  come: fc.array(fc.record({ key: keys, meta: metas }), { maxLength: 3 }),
  update: fc.array(fc.record({ at: fc.nat(9), meta: metas }), { maxLength: 2 }),
  go: fc.array(fc.nat(9), { maxLength: 2 }),
})
const steps: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: changes },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('miss' as const),
      held: fc.constantFrom('same socket' as const, 'older' as const, 'unknown' as const),
      missed: changes,
    }),
  },
  { weight: 1, arbitrary: fc.constant({ do: 'count' as const }) },
)

/** The members of a channel, and what is told of each change. */
class Members {
  readonly entries = new Map<string, PresenceEntry>()
  #last = 0

  apply({ come, update, go }: Step & { do: 'change' }): Outgoing | null {
    const before = [...this.entries.values()]
    const at = (place: number): PresenceEntry | undefined => before[place % Math.max(before.length, 1)]
    const left = [...new Set(go.map(at))].filter(entry => entry !== undefined)
    const updated = new Map<string, PresenceEntry>()
    for (const { at: place, meta } of update) {
      const entry = at(place)
      if (entry !== undefined && !left.includes(entry)) updated.set(entry.ref, { ...entry, meta: JSON.stringify(meta) })
    }
    const joined = come.map(({ key, meta }) => {
      this.#last += 1
      return entryOf(String(this.#last).padStart(6, '0'), key, meta)
    })
    for (const { ref } of left) this.entries.delete(ref)
    for (const entry of [...joined, ...updated.values()]) this.entries.set(entry.ref, entry)
    if (joined.length + updated.size + left.length === 0) return null
    return changed({ joined, updated: [...updated.values()], left }, this.entries.size)
  }

  here(): Outgoing {
    return here([...this.entries.values()])
  }
}

describe.each(byName(fedKinds))('%s', (_, kind) => {
  async function joined(...entries: PresenceEntry[]): Promise<{ client: FedClient; told: PresenceTold }> {
    const client = await kind.join()
    const told = new PresenceTold(kind.vsn, topic, 'none')
    client.feed(told.framesOf(here(entries)))
    client.told.length = 0
    return { client, told }
  }

  test('holds exactly who is there, whatever happened, also while it was away', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(steps, { maxLength: 12 }), async all => {
        const members = new Members()
        const client = await kind.join()
        let told = new PresenceTold(kind.vsn, topic, 'none')
        try {
          client.feed(told.framesOf(members.here()))
          for (const step of all) {
            if (step.do === 'change') {
              const event = members.apply(step)
              if (event !== null) client.feed(told.framesOf(event))
            } else if (step.do === 'miss') {
              members.apply(step.missed)
              if (step.held !== 'same socket') {
                await client.comeBack()
                told = new PresenceTold(kind.vsn, topic, step.held)
              }
              client.feed(told.framesOf(members.here()))
            } else {
              client.feed(told.framesOf(counted(members.entries.size)))
              expect(textOf(client.listed)).toBe('[]')
              client.feed(told.framesOf(members.here()))
            }
            expect(textOf(client.listed)).toBe(textOf(listOf(members.entries.values())))
          }
        } finally {
          client.end()
        }
      }),
      { numRuns: 60 },
    )
  })

  test('sees an update as a join alone: nobody seems to leave', async () => {
    const { client, told } = await joined(entryOf('1', 'ann', { n: 1 }), entryOf('2', 'bob', { n: 1 }))
    client.feed(told.framesOf(changed({ updated: [entryOf('1', 'ann', { n: 2 })] }, 2)))
    expect(client.told).toEqual(['join ann', 'sync'])
    expect(client.listed.ann).toEqual([{ n: 2, presence_ref: '1' }])
    client.end()
  })

  test('lists several of one key, of whom one goes', async () => {
    const { client, told } = await joined(entryOf('1', 'ann', { at: 'phone' }))
    client.feed(told.framesOf(changed({ joined: [entryOf('2', 'ann', { at: 'desk' })] }, 2)))
    client.feed(told.framesOf(changed({ left: [entryOf('1', 'ann', { at: 'phone' })] }, 1)))
    expect(client.listed).toEqual({ ann: [{ at: 'desk', presence_ref: '2' }] })
    expect(client.told).toEqual(['join ann', 'sync', 'leave ann', 'sync'])
    client.end()
  })

  test('is told nobody joined or left where it comes back and all is as it was', async () => {
    const { client } = await joined(entryOf('1', 'ann', { n: 1 }))
    await client.comeBack()
    client.feed(new PresenceTold(kind.vsn, topic, 'none').framesOf(here([entryOf('1', 'ann', { n: 1 })])))
    expect(client.told).toEqual(['sync'])
    client.end()
  })

  test('that holds nothing is told of each who is there once, also where that is not known', async () => {
    for (const held of ['none', 'unknown'] as const) {
      const client = await kind.join()
      client.feed(new PresenceTold(kind.vsn, topic, held).framesOf(here([entryOf('1', 'ann'), entryOf('2', 'bob')])))
      expect(client.told.filter(told => told !== 'sync')).toEqual(['join ann', 'join bob'])
      client.end()
    }
  })

  test('is told of nobody, and of why, where more are there than are listed', async () => {
    const { client, told } = await joined(entryOf('1', 'ann'))
    const frames = told.framesOf(counted(1001)).toString()
    expect(frames).toContain('"extension":"presence","status":"error","message":"PresenceNotListed: 1001 are here')
    expect(frames).toContain(`"channel":"${fedTopic}"`)
    client.feed(told.framesOf(counted(1001)))
    // Each count is a notice of the rule no more: once is enough.
    expect(told.framesOf(counted(1002))).toHaveLength(0)
    expect(told.framesOf(changed({ joined: [entryOf('9', 'eve')] }, 1003))).toHaveLength(0)
    client.feed(told.framesOf(here([entryOf('1', 'ann'), entryOf('2', 'bob')])))
    expect(Object.keys(client.listed).sort()).toEqual(['ann', 'bob'])
    client.end()
  })
})

test('the frames of one event are made once for all who get it', () => {
  const event = here([entryOf('1', 'ann')])
  const [one, other] = [new PresenceTold('2.0.0', topic, 'none'), new PresenceTold('2.0.0', topic, 'none')]
  expect(one.framesOf(event)).toBe(other.framesOf(event))
  expect(new PresenceTold('1.0.0', topic, 'none').framesOf(event)).not.toBe(one.framesOf(event))
})

describe('a push of presence', () => {
  test.each<[string, Json, object]>([
    ['track', { type: 'presence', event: 'track', payload: { a: 1 } }, { type: 'track', meta: { a: 1 }, key: 'k' }],
    ['TRACK', { type: 'presence', event: 'TRACK', payload: {} }, { type: 'track', meta: {}, key: 'k' }],
    ['track without a payload', { event: 'track' }, { type: 'track', meta: {}, key: 'k' }],
    ['untrack', { type: 'presence', event: 'untrack' }, { type: 'untrack' }],
    ['Untrack', { event: 'Untrack' }, { type: 'untrack' }],
  ])('%s is one of the channel', (_, payload, frame) => {
    expect(trackFrameOf(payload, ids, 'k')).toEqual({ ...frame, ...ids })
  })

  test('leaves the key to the server where the client names none', () => {
    expect(trackFrameOf({ event: 'track', payload: {} }, ids, null)).toEqual({ type: 'track', meta: {}, ...ids })
  })

  test.each<[Json]>([[[]], [null], ['text'], [7]])('whose payload is %j is told so in the words of Supabase', meta => {
    expect(() => trackFrameOf({ event: 'track', payload: meta }, ids, 'k')).toThrow(
      expect.objectContaining({ code: 'BAD_FRAME', message: 'Presence track payload must be a map' }),
    )
  })

  test.each<[string, Json]>([
    ['another event', { event: 'join', payload: {} }],
    ['no event', { payload: {} }],
    ['an event that is no text', { event: 1 }],
    ['no map', 'track'],
    ['a list', ['track']],
  ])('with %s is refused', (_, payload) => {
    expect(() => trackFrameOf(payload, ids, 'k')).toThrow(expect.objectContaining({ code: 'BAD_FRAME' }))
  })

  test('nested deeper than any channel takes is refused', () => {
    const deep = JSON.parse(`${'{"a":'.repeat(70)}1${'}'.repeat(70)}`)
    expect(() => trackFrameOf({ event: 'track', payload: deep }, ids, 'k')).toThrow(/nested deeper/)
  })

  test.each(['__proto__', 'constructor', 'toString'])(
    'under the key %s, at which clients of others fail, is refused',
    key => {
      expect(() => trackFrameOf({ event: 'track', payload: {} }, ids, key)).toThrow(
        expect.objectContaining({ code: 'BAD_FRAME' }),
      )
    },
  )
})
