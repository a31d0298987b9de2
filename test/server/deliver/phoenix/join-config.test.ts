import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Json } from '../../../../src/protocol/messages.ts'
import { joinConfigOf } from '../../../../src/server/deliver/phoenix/join-config.ts'
import type { Binding, JoinConfig } from '../../../../src/server/deliver/phoenix/wire.ts'

const topic = 'realtime:room:1'
const configOf = (config: Json): JoinConfig => joinConfigOf(topic, { config })
const bindingsOf = (...entries: Json[]): readonly Binding[] => configOf({ postgres_changes: entries }).bindings

const nothing: JoinConfig = {
  isPrivate: false,
  self: false,
  ack: false,
  replay: null,
  replicationReady: false,
  presenceKey: '',
  presence: false,
  bindings: [],
  accessToken: null,
  isLegacy: false,
}

test('a join as the client sends it', () => {
  const todos = { event: '*', schema: 'public', table: 'todos', filter: 'id=eq.1', select: ['id', 'task'] }
  const payload = {
    config: {
      broadcast: {
        ack: true,
        self: true,
        replay: { since: 1763407103911, limit: 10 },
        replication_ready: true,
      },
      presence: { key: 'user-1', enabled: true },
      postgres_changes: [todos],
      private: true,
      postgres_changes_options: { wait: true },
    },
    access_token: 'a.b.c',
  }
  const { bindings, ...config } = joinConfigOf(topic, payload)
  expect(config).toEqual({
    isPrivate: true,
    self: true,
    ack: true,
    replay: { sinceMs: 1763407103911, limit: 10 },
    replicationReady: true,
    presenceKey: 'user-1',
    presence: true,
    accessToken: 'a.b.c',
    isLegacy: false,
  })
  const { id, echo, ...asked } = bindings[0]!
  expect(bindings).toHaveLength(1)
  expect(asked).toEqual(todos)
  expect(JSON.parse(echo)).toEqual({ id, ...todos })
})

test.each<[string, Json]>([
  ['an empty config', {}],
  ['no config', null],
  ['a config that is a text', 'private'],
  ['a config that is an array', [{ private: true }]],
  ['parts that are no maps', { broadcast: true, presence: 'on', postgres_changes: {} }],
  ['parts that are null', { broadcast: null, presence: null, postgres_changes: null, private: null }],
  ['parts of odd values', { broadcast: { ack: 1, self: 'yes' }, presence: { key: {}, enabled: [] } }],
  ['keys it does not know', { broadcasts: { ack: true }, foo: 1 }],
  ['keys of prototypes', JSON.parse('{"__proto__":{"private":true},"constructor":{"name":1}}')],
])('of %s all is as if it were left out', (_name, config) => {
  expect(configOf(config)).toEqual(nothing)
})

test.each<[Json, boolean]>([
  [true, true],
  ['true', true],
  ['TRUE', true],
  [false, false],
  ['false', false],
  ['False', false],
])('a boolean may come as %o', (sent, read) => {
  const config = configOf({ private: sent, broadcast: { ack: sent, self: sent }, presence: { enabled: sent } })
  expect([config.isPrivate, config.ack, config.self, config.presence]).toEqual([read, read, read, read])
})

test.each<[Json]>([[1], ['yes'], [0], [''], [{}], [[]]])(
  'what is sent to a channel of `private: %o` stays private',
  sent => {
    expect(configOf({ private: sent }).isPrivate).toBe(true)
  },
)

test.each<[Json, string]>([
  ['user-1', 'user-1'],
  [42, '42'],
  ['', ''],
  [null, ''],
  [true, ''],
  [['a'], ''],
])('the presence key %o is %o', (sent, key) => {
  expect(configOf({ presence: { key: sent } }).presenceKey).toBe(key)
})

const since = 1763407103911

test.each<[Json, JoinConfig['replay']]>([
  [
    { since, limit: 10 },
    { sinceMs: since, limit: 10 },
  ],
  [{ since }, { sinceMs: since, limit: 25 }],
  [
    { since, limit: null },
    { sinceMs: since, limit: 25 },
  ],
  [
    { since, limit: 1000 },
    { sinceMs: since, limit: 25 },
  ],
  [
    { since, limit: 0 },
    { sinceMs: since, limit: 1 },
  ],
  [
    { since, limit: -3 },
    { sinceMs: since, limit: 1 },
  ],
  [
    { since: 0, limit: 1 },
    { sinceMs: 0, limit: 1 },
  ],
  [null, null],
  [{}, 'invalid'],
  [{ limit: 3 }, 'invalid'],
  [{ since: null }, 'invalid'],
  [{ since: `${since}` }, 'invalid'],
  [{ since: since + 0.5 }, 'invalid'],
  [{ since: 9e15 }, 'invalid'],
  [{ since, limit: '10' }, 'invalid'],
  [{ since, limit: 1.5 }, 'invalid'],
  [true, 'invalid'],
  ['all', 'invalid'],
  [[since, 10], 'invalid'],
])('a replay of %o is %o', (sent, replay) => {
  expect(configOf({ broadcast: { replay: sent } }).replay).toEqual(replay)
})

test.each<[{ [key: string]: Json }, string | null]>([
  [{ access_token: 'a.b.c' }, 'a.b.c'],
  [{ user_token: 'a.b.c' }, 'a.b.c'],
  [{ user_token: null, access_token: 'a.b.c' }, 'a.b.c'],
  [{ access_token: 'sb_publishable_x' }, null],
  [{ user_token: 'sb_secret_x' }, null],
  [{ access_token: '' }, null],
  [{ access_token: null }, null],
  [{ access_token: 7 }, null],
  [{ access_token: ['a.b.c'] }, null],
  [{}, null],
])('the token of %o is %o', (payload, token) => {
  expect(joinConfigOf(topic, { config: {}, ...payload }).accessToken).toBe(token)
  expect(joinConfigOf(topic, payload).accessToken).toBe(token)
})

const all = { event: '*', schema: 'public', table: 'todos', filter: null, select: null } as const

describe('an entry of postgres_changes', () => {
  test.each<[Json, Omit<Binding, 'id' | 'echo'>]>([
    [{ event: '*', schema: 'public', table: 'todos' }, all],
    [{ schema: 'public', table: 'todos' }, all],
    [
      { event: 'INSERT', schema: 'public', table: 'todos' },
      { ...all, event: 'INSERT' },
    ],
    [
      { event: 'update', schema: 'public', table: 'todos' },
      { ...all, event: 'UPDATE' },
    ],
    [
      { event: 'Delete', schema: 'public', table: 'todos' },
      { ...all, event: 'DELETE' },
    ],
    [{ event: 'TRUNCATE', schema: 'public', table: 'todos' }, all],
    [{ event: 3, schema: 'public', table: 'todos' }, all],
    [
      { event: '*', schema: 'public' },
      { ...all, table: '*' },
    ],
    [
      { event: '*', schema: '*', table: '*' },
      { ...all, schema: '*', table: '*' },
    ],
    [{ event: '*', table: 'todos' }, all],
    [{ event: '*', schema: null, table: 'todos', filter: null, select: null }, all],
    [{ event: '*' }, { ...all, schema: '', table: '' }],
    [{}, { ...all, schema: '', table: '' }],
    ['todos', { ...all, schema: '', table: '' }],
    [['public', 'todos'], { ...all, schema: '', table: '' }],
    [
      { schema: 'public', table: 7 },
      { ...all, table: '7' },
    ],
    [
      { schema: 'public', table: ['todos'] },
      { ...all, table: '["todos"]' },
    ],
    [
      { schema: 'public', table: 'todos', filter: 'id=gt.0,id=lt.9' },
      { ...all, filter: 'id=gt.0,id=lt.9' },
    ],
    [{ schema: 'public', table: 'todos', filter: '' }, all],
    [{ schema: 'public', table: 'todos', filter: '  ' }, all],
    [
      { schema: 'public', table: 'todos', filter: { id: 1 } },
      { ...all, filter: '{"id":1}' },
    ],
    [
      { schema: 'public', table: 'todos', filter: false },
      { ...all, filter: 'false' },
    ],
    [
      { schema: 'public', table: 'todos', select: ['id', 'task'] },
      { ...all, select: ['id', 'task'] },
    ],
    [{ schema: 'public', table: 'todos', select: [] }, all],
    [
      { schema: 'public', table: 'todos', select: ['id', 4, null] },
      { ...all, select: ['id'] },
    ],
    [
      { schema: 'public', table: 'todos', select: 'id,task' },
      { ...all, select: ['id,task'] },
    ],
  ])('%o', (entry, asked) => {
    const [binding, ...others] = bindingsOf(entry)
    expect(others).toEqual([])
    expect(binding).toEqual({ ...asked, id: binding!.id, echo: binding!.echo })
  })

  test('of null is none', () => {
    expect(bindingsOf(null, { table: 'todos' }, null)).toEqual(bindingsOf({ table: 'todos' }))
  })
})

const odd = fc.oneof(fc.jsonValue(), fc.constantFrom('', '*', 'public', 'INSERT', null)) as fc.Arbitrary<Json>
const entry = fc.oneof(
  fc.record({ event: odd, schema: odd, table: odd, filter: odd, select: odd }, { requiredKeys: [] }),
  fc.dictionary(fc.constantFrom('table', 'id', '__proto__', 'constructor'), odd),
  odd,
) as fc.Arbitrary<Json>

test('the reply has a place for every entry but null, with what was sent there and an id of its own, the same each time', () => {
  fc.assert(
    fc.property(fc.array(entry), entries => {
      const sent = entries.filter(entry => entry !== null)
      const bindings = bindingsOf(...entries)
      expect(bindings).toHaveLength(sent.length)
      for (const [place, { id, echo }] of bindings.entries()) {
        const asked = sent[place] as { [key: string]: Json }
        const parts = ['event', 'schema', 'table', 'filter', 'select'].filter(key => Object.hasOwn(Object(asked), key))
        const expected = Object.fromEntries(parts.map(key => [key, asked[key]]))
        expect(JSON.parse(echo)).toEqual(JSON.parse(JSON.stringify({ id, ...expected })))
        expect(id).toSatisfy(id => Number.isInteger(id) && id >= 1 && id < 2 ** 27)
      }
      expect(new Set(bindings.map(({ id }) => id)).size).toBe(bindings.length)
      expect(bindingsOf(...entries)).toEqual(bindings)
    }),
  )
})

test('an id is of what is asked, whatever else is asked beside it', () => {
  const todos = { event: '*', schema: 'public', table: 'todos' }
  const [alone] = bindingsOf(todos)
  const [, beside] = bindingsOf({ ...todos, event: 'INSERT' }, todos)
  expect(beside).toEqual(alone)
  for (const other of [{ event: 'INSERT' }, { schema: 'a' }, { table: 'a' }, { filter: 'a=eq.1' }, { select: ['a'] }])
    expect(bindingsOf({ ...todos, ...other })[0]!.id).not.toBe(alone!.id)
})

test('ids whose hashes meet are told apart, and so are as many of the same as one likes', () => {
  const many = Array.from({ length: 40_000 }, (_, number) => ({ table: `t${number}` }))
  const bindings = bindingsOf(...many)
  const moved = bindings.filter(({ id }, number) => bindingsOf(many[number]!)[0]!.id !== id)
  // Of 40,000 draws out of 2^27 some six meet. None would prove nothing.
  expect(moved.length).toBeGreaterThan(0)
  expect(new Set(bindings.map(({ id }) => id)).size).toBe(many.length)

  const same = bindingsOf(...many.map(() => ({ table: 'todos' })))
  expect(new Set(same.map(({ id }) => id)).size).toBe(many.length)
})

describe('a join without a config', () => {
  test.each<[string, Partial<Binding>[]]>([
    ['realtime:*', [{ schema: '*', table: '*', filter: null }]],
    ['realtime:public', [{ schema: 'public', table: '*', filter: null }]],
    ['realtime:public:todos', [{ schema: 'public', table: 'todos', filter: null }]],
    ['realtime:public:todos:', [{ schema: 'public', table: 'todos', filter: null }]],
    ['realtime:public:todos:id=eq.1', [{ schema: 'public', table: 'todos', filter: 'id=eq.1' }]],
    ['realtime:public:todos:at=eq.12:30', [{ schema: 'public', table: 'todos', filter: 'at=eq.12:30' }]],
    ['realtime:', []],
    ['realtime', []],
  ])('of %s asks for the changes that its topic names', (topic, bindings) => {
    const expected = { ...nothing, isLegacy: true, bindings: bindings.map(each => expect.objectContaining(each)) }
    for (const payload of [{}, { unknown: 1 }, null, [], 'text']) expect(joinConfigOf(topic, payload)).toEqual(expected)
    expect(bindings.map(() => '*')).toEqual(joinConfigOf(topic, {}).bindings.map(({ event }) => event))
  })

  test('one with a config asks for none', () => {
    expect(joinConfigOf('realtime:public:todos', { config: {} }).bindings).toEqual([])
  })
})

test('whatever comes, it is an answer', () => {
  const keys = fc.constantFrom(
    'config',
    'access_token',
    'user_token',
    'broadcast',
    'presence',
    'postgres_changes',
    'private',
  )
  const { value } = fc.letrec<{ value: Json; map: { [key: string]: Json } }>(tie => ({
    map: fc.dictionary(keys, tie('value')),
    value: fc.oneof({ depthSize: 'small' }, odd, tie('map'), fc.array(tie('value'), { maxLength: 3 })),
  }))
  fc.assert(
    fc.property(fc.string(), value, fc.dictionary(keys, value), (topic, value, config) => {
      for (const payload of [value, { config }]) {
        const { bindings, ...rest } = joinConfigOf(topic, payload)
        expect(Object.keys(rest).sort()).toEqual(
          Object.keys(nothing)
            .filter(key => key !== 'bindings')
            .sort(),
        )
        for (const { echo } of bindings) JSON.parse(echo)
      }
    }),
  )
})
