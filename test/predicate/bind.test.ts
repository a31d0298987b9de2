import { describe, expect, test } from 'vitest'
import type { Expr, Predicate, SemiJoin, SqlType } from '../../src/predicate/algebra.ts'
import { assertCompilable, bind } from '../../src/predicate/bind.ts'
import { and, asCondition, not, or } from '../../src/predicate/build.ts'
import { columnsOf, innerColumnsOf, semiJoinsOf, settingsOf } from '../../src/predicate/columns.ts'
import { assertComparable } from '../../src/predicate/compare.ts'
import { compile } from '../../src/predicate/evaluate.ts'
import { fingerprint } from '../../src/predicate/fingerprint.ts'
import { cover } from '../../src/predicate/keys.ts'
import { renderPredicate } from '../../src/predicate/render.ts'
import { sqlTypes } from '../../src/predicate/sql-types.ts'
import { TidegateError } from '../../src/protocol/tidegate-error.ts'
import { compiler } from './samples.ts'

const text: SqlType = { ...sqlTypes.text, collation: 'c' }
const column = (position: number, type: SqlType = text) =>
  ({ kind: 'column', column: position, name: `c${position}`, type }) as const
const constant = (value: string | null, type: SqlType = sqlTypes.text): Expr => ({ kind: 'const', value, type })
const equal = (left: Expr, right: Expr): Predicate => ({ kind: 'compare', op: '=', left, right })
const setting = (name: string, missingOk = true): Expr => ({ kind: 'setting', name, missingOk, type: sqlTypes.text })
const cast = (arg: Expr, type: SqlType): Expr => ({ kind: 'cast', arg, type })

/** Supabase's auth.uid(). */
const uid = cast(
  {
    kind: 'coalesce',
    args: [
      { kind: 'nullif', left: setting('request.jwt.claim.sub'), right: constant(''), type: sqlTypes.text },
      {
        kind: 'jsonGet',
        arg: cast(
          { kind: 'nullif', left: setting('request.jwt.claims'), right: constant(''), type: sqlTypes.text },
          sqlTypes.jsonb,
        ),
        key: constant('sub'),
        asText: true,
        type: sqlTypes.text,
      },
    ],
    type: sqlTypes.text,
  },
  sqlTypes.uuid,
)
const alice = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'
const as = (claims: unknown) => (name: string) => (name === 'request.jwt.claims' ? JSON.stringify(claims) : null)
const owner = equal(column(0, sqlTypes.uuid), uid)

function join(keys: SemiJoin['keys'], where: Predicate = { kind: 'true' }, nullAware = false): SemiJoin {
  return { kind: 'semiJoin', table: { oid: 7, schema: 'public', name: 'members' }, keys, where, nullAware }
}
const membership = join(
  [{ inner: column(0, sqlTypes.int8), outer: column(3, sqlTypes.int4) }],
  equal(column(1, sqlTypes.uuid), uid),
)

describe('binding claims', () => {
  test('auth.uid() becomes the reader’s UUID', () => {
    expect(bind(owner, as({ sub: alice.toUpperCase() }))).toMatchObject(
      equal(column(0, sqlTypes.uuid), constant(alice, sqlTypes.uuid)),
    )
  })

  test('without a sub, nobody owns anything', () => {
    expect(bind(owner, as({}))).toEqual({ kind: 'unknown' })
    expect(bind(owner, () => null)).toEqual({ kind: 'unknown' })
    expect(bind(not(owner), () => null)).toEqual({ kind: 'unknown' })
  })

  test('a sub that is no UUID is refused, without showing it', () => {
    for (const predicate of [owner, or(equal(column(1), constant('x')), owner), not(owner), membership]) {
      let error: unknown
      try {
        bind(predicate, as({ sub: 'auth0|12345' }))
      } catch (caught) {
        error = caught
      }
      expect(error).toBeInstanceOf(TidegateError)
      expect((error as TidegateError).code).toBe('CLAIM_INVALID')
      expect(String(error)).toContain('uuid')
      expect(String(error)).not.toContain('auth0')
    }
  })

  test('a value that logic alone does not need may be anything', () => {
    const settings = as({ sub: 'auth0|12345', role: 'admin' })
    const role: Expr = {
      kind: 'jsonGet',
      arg: cast(setting('request.jwt.claims'), sqlTypes.jsonb),
      key: constant('role'),
      asText: true,
      type: sqlTypes.text,
    }
    expect(bind(or(owner, equal(role, constant('admin'))), settings)).toEqual({ kind: 'true' })
    expect(bind(and(owner, equal(role, constant('guest'))), settings)).toEqual({ kind: 'false' })
    const first: Expr = { kind: 'coalesce', args: [constant(alice, sqlTypes.uuid), uid], type: sqlTypes.uuid }
    expect(bind(equal(column(0, sqlTypes.uuid), first), settings)).toEqual(
      equal(column(0, sqlTypes.uuid), constant(alice, sqlTypes.uuid)),
    )
  })

  test('a missing setting raises unless missing_ok', () => {
    expect(() => bind(equal(column(1), setting('app.tenant', false)), () => undefined)).toThrow(/app\.tenant/)
    expect(bind(equal(column(1), setting('app.tenant')), () => undefined)).toEqual({ kind: 'unknown' })
  })

  test('claims that are numbers keep every digit', () => {
    const tenant: Expr = cast(
      {
        kind: 'jsonGet',
        arg: cast(setting('request.jwt.claims'), sqlTypes.json),
        key: constant('tenant'),
        asText: true,
        type: sqlTypes.text,
      },
      sqlTypes.int8,
    )
    const bound = bind(equal(column(0, sqlTypes.int8), tenant), () => '{"tenant": 9007199254740993}')
    expect(bound).toMatchObject(equal(column(0, sqlTypes.int8), constant('9007199254740993', sqlTypes.int8)))
  })

  test('what stands around a column is taken off it, so that an index finds it', () => {
    const topic = setting('realtime.topic')
    const id = column(3, sqlTypes.int4)
    const text = (value: Expr): Expr => cast(value, sqlTypes.text)
    const joined = (...args: Expr[]): Expr => ({ kind: 'call', name: '||', args, type: sqlTypes.text })
    const room = joined(joined(constant('room:'), text(id)), constant(':x'))
    const found = (predicate: Predicate, value: string | null) => cover(bind(predicate, () => value))
    const seven = [{ kind: 'const', column: 3, keys: ['7'] }]
    expect(found(equal(topic, room), 'room:7:x')).toMatchObject(seven)
    expect(found(equal(room, topic), 'room:07:x')).toEqual([])
    expect(found(equal(room, topic), 'user:7:x')).toEqual([])
    expect(found(equal(room, topic), null)).toEqual([])
    const field: Expr = {
      kind: 'call',
      name: 'split_part',
      args: [topic, constant(':'), constant('2', sqlTypes.int4)],
      type: sqlTypes.text,
    }
    expect(found(equal(text(id), field), 'room:7')).toMatchObject(seven)
    const listed: Expr = { kind: 'call', name: '?', args: [cast(topic, sqlTypes.jsonb), text(id)], type: sqlTypes.bool }
    expect(found({ kind: 'boolean', arg: listed }, '["7", 8, "x"]')).toMatchObject(seven)
    const list: Expr = cast(
      {
        kind: 'call',
        name: 'jsonTexts',
        args: [cast(topic, sqlTypes.jsonb)],
        type: { oid: 1009, name: 'text[]', family: 'array', element: sqlTypes.text },
      },
      { oid: 1007, name: 'integer[]', family: 'array', element: sqlTypes.int4 },
    )
    expect(found({ kind: 'any', left: id, array: list }, '[7]')).toMatchObject(seven)
    expect(found({ kind: 'any', left: id, array: list }, null)).toEqual([])
  })

  test('what is compared with a column that is freed of its cast has the type of what is left, also where it is NULL', () => {
    const id = column(3, sqlTypes.int4)
    const nothing = constant(null, sqlTypes.text)
    for (const items of [
      [nothing, nothing],
      [nothing, constant('7', sqlTypes.text)],
    ]) {
      const bound = bind({ kind: 'in', left: cast(id, sqlTypes.text), items }, () => null)
      expect(() => compile(bound)).not.toThrow()
    }
  })

  test('CASE and calls that claims decide become constants', () => {
    const flag = equal(setting('a'), constant('1'))
    const choice: Expr = { kind: 'case', whens: [flag], values: [column(0)], otherwise: constant('z'), type: text }
    expect(bind(equal(choice, constant('x')), () => '1')).toMatchObject(equal(column(0), constant('x')))
    expect(bind(equal(choice, constant('x')), () => null)).toEqual({ kind: 'false' })
  })

  test('a LIKE pattern from a claim that ends in its escape is refused', () => {
    const like: Predicate = { kind: 'like', arg: column(1), pattern: setting('p'), insensitive: false }
    expect(() => bind(like, () => 'a\\')).toThrow(expect.objectContaining({ code: 'CLAIM_INVALID' }))
  })

  test('a semi-join over no inner row is false, also for NULL', () => {
    expect(bind(membership, () => null)).toEqual({ kind: 'false' })
    expect(bind({ ...membership, nullAware: true }, () => null)).toEqual({ kind: 'false' })
  })

  test('a constant key of EXISTS picks inner rows', () => {
    const keyed = join([...membership.keys, { inner: column(1, sqlTypes.uuid), outer: uid }])
    expect(fingerprint(bind(keyed, as({ sub: alice })))).toBe(fingerprint(bind(membership, as({ sub: alice }))))
  })

  test('an array claim becomes a list', () => {
    const array: SqlType = { oid: 1009, name: 'text[]', family: 'array', element: sqlTypes.text }
    const any: Predicate = { kind: 'any', left: column(1), array: cast(setting('groups'), array) }
    expect(bind(any, () => '{a,b}')).toMatchObject({
      kind: 'in',
      left: column(1),
      items: [constant('a'), constant('b')],
    })
    expect(bind(any, () => '{}')).toEqual({ kind: 'false' })
    expect(bind(any, () => null)).toEqual({ kind: 'unknown' })
  })

  test('what can never be judged is refused before there are claims', () => {
    expect(() => assertCompilable(membership)).not.toThrow()
    expect(() => assertCompilable(owner)).not.toThrow()
    const interval: SqlType = { oid: 1186, name: 'interval', family: 'other' }
    expect(() => assertCompilable(equal(column(0, interval), column(1, interval)))).toThrow(TidegateError)
    expect(() => assertCompilable(join([], equal(column(0, interval), column(1, interval))))).toThrow(/interval/)
    expect(() => assertCompilable(equal(cast(column(0, sqlTypes.float8), sqlTypes.text), setting('x')))).toThrow(
      expect.objectContaining({ code: 'POLICY_UNSUPPORTED' }),
    )
  })
})

describe('building', () => {
  test('AND and OR keep unknown apart from false', () => {
    const a = equal(column(0), constant('a'))
    const unknown: Predicate = { kind: 'unknown' }
    expect(and()).toEqual({ kind: 'true' })
    expect(or()).toEqual({ kind: 'false' })
    expect(and(a, { kind: 'true' })).toBe(a)
    expect(and(a, unknown)).toEqual({ kind: 'and', args: [a, unknown] })
    expect(and(unknown, { kind: 'unknown' })).toEqual(unknown)
    expect(and(a, { kind: 'false' })).toEqual({ kind: 'false' })
    // What stands twice counts once, also as a copy.
    expect(and(a, { ...a })).toBe(a)
    expect(or(a, { ...a })).toBe(a)
    expect(or(a, or(a, unknown))).toEqual({ kind: 'or', args: [a, unknown] })
    expect(not(unknown)).toBe(unknown)
    expect(not(not(a))).toBe(a)
  })

  test('a condition turns IN into EXISTS, but not under NOT', () => {
    const inSelect = { ...membership, nullAware: true }
    expect(asCondition(inSelect)).toEqual(membership)
    expect(asCondition(not(inSelect))).toEqual(not(inSelect))
  })
})

describe('cover', () => {
  const room = (value: string) => equal(column(3, sqlTypes.int4), constant(value, sqlTypes.int4))
  const bound = bind(membership, as({ sub: alice })) as SemiJoin
  const inRoom = { kind: 'const', column: 3, keys: ['42'], ofReader: false }

  test.each<readonly [string, Predicate, ReturnType<typeof cover>]>([
    ['nothing is true', { kind: 'false' }, []],
    ['NULL equals nothing', equal(column(3, sqlTypes.int4), constant(null, sqlTypes.int4)), []],
    ['everything', { kind: 'true' }, null],
    ['a key', room('42'), [inRoom as never]],
    ['a membership', bound, [{ kind: 'semiJoin', join: bound, columns: [3] }]],
    ['the smaller side of AND', and(bound, room('42'), { kind: 'isNull', arg: column(1) }), [inRoom as never]],
    ['every side of OR', or(room('42'), bound), [inRoom as never, { kind: 'semiJoin', join: bound, columns: [3] }]],
    [
      'keys of one column together',
      or(room('42'), room('7')),
      [{ kind: 'const', column: 3, keys: ['42', '7'], ofReader: false }],
    ],
    ['a side of OR without a key', or(room('42'), { kind: 'isNull', arg: column(1) }), null],
    ['not a negation', not(room('42')), null],
    ['numeric against int', equal(column(3, sqlTypes.int4), constant('42.0', sqlTypes.numeric)), [inRoom as never]],
    ['not int8 as a double', equal(column(3, sqlTypes.int8), constant('42', sqlTypes.float8)), null],
    ['EXISTS without a key of the row', { ...bound, keys: [] }, null],
    [
      'a boolean column',
      { kind: 'boolean', arg: column(1, sqlTypes.bool) },
      [{ kind: 'const', column: 1, keys: ['t'], ofReader: false }],
    ],
  ])('%s', (_, predicate, anchors) => {
    expect(cover(predicate)).toEqual(anchors)
  })
})

test('columns, semi-joins and settings of a predicate', () => {
  const predicate = and(owner, or(membership, { kind: 'isNull', arg: column(5) }))
  expect(columnsOf(predicate)).toEqual(new Set([0, 3, 5]))
  expect(semiJoinsOf(predicate)).toEqual([membership])
  expect(innerColumnsOf(membership)).toEqual(new Set([0, 1]))
  expect(settingsOf(membership)).toEqual(new Set(['request.jwt.claim.sub', 'request.jwt.claims']))
})

describe('fingerprint', () => {
  const a = equal(column(0), constant('a'))
  const b = equal(column(0), constant('b'))
  test('forgets the order of AND, OR and IN, and the sides of =', () => {
    expect(fingerprint(and(a, or(b, membership)))).toBe(fingerprint(and(or(membership, b), a, a)))
    expect(fingerprint(equal(constant('a'), column(0)))).toBe(fingerprint(a))
  })
  test('keeps apart what differs', () => {
    const others = [
      a,
      b,
      not(a),
      and(a, b),
      or(a, b),
      equal(column(0), constant(null)),
      equal(column(0), constant('null')),
      equal(column(0), constant('a","b')),
      membership,
      { ...membership, nullAware: true },
      { ...membership, where: a },
    ]
    expect(new Set(others.map(fingerprint)).size).toBe(others.length)
  })
})

describe('assertComparable', () => {
  const collated = (collation: NonNullable<SqlType['collation']>): SqlType => ({ ...sqlTypes.text, collation })
  test.each<readonly [Parameters<typeof assertComparable>[0], SqlType, SqlType, boolean]>([
    ['=', sqlTypes.int4, sqlTypes.numeric, true],
    ['<', sqlTypes.int8, sqlTypes.float4, true],
    ['=', sqlTypes.int4, sqlTypes.text, false],
    ['=', sqlTypes.json, sqlTypes.json, false],
    ['=', sqlTypes.jsonb, sqlTypes.jsonb, false],
    ['<', sqlTypes.date, sqlTypes.timestamptz, true],
    ['=', sqlTypes.date, sqlTypes.time, false],
    [
      '=',
      { oid: 1266, name: 'time with time zone', family: 'other' },
      { oid: 1266, name: 'time with time zone', family: 'other' },
      false,
    ],
    ['=', collated('deterministic'), sqlTypes.text, true],
    ['<', collated('deterministic'), sqlTypes.text, false],
    ['<', collated('c'), sqlTypes.text, true],
    ['<', sqlTypes.text, sqlTypes.text, false],
    ['<', collated('c'), collated('deterministic'), false],
    ['=', collated('nondeterministic'), sqlTypes.text, false],
    ['distinct', collated('nondeterministic'), sqlTypes.text, false],
    ['=', { oid: 90000, name: 'd', family: 'float', domain: true }, sqlTypes.float8, false],
    ['=', { oid: 90000, name: 'd', family: 'float', domain: true, base: sqlTypes.float4 }, sqlTypes.float8, true],
  ])('%s on %o and %o', (op, left, right, accepted) => {
    if (accepted) expect(() => assertComparable(op, left, right)).not.toThrow()
    else
      expect(() => assertComparable(op, left, right)).toThrow(expect.objectContaining({ code: 'FILTER_UNSUPPORTED' }))
  })

  test('a cast does not hide the collation of the column beneath', () => {
    const hidden = cast(column(0, { ...sqlTypes.varchar, collation: 'nondeterministic' }), sqlTypes.text)
    expect(() => assertComparable('=', hidden, constant('a'))).toThrow(/nondeterministic/)
  })
})

test('a semi-join is not rendered without an alias, where an inner column would catch the outer', () => {
  expect(() => renderPredicate(membership).compile(compiler)).toThrow(/alias/)
  expect(renderPredicate(membership, { alias: 'r' }).compile(compiler).sql).toContain('"m1"."c0" = "r"."c3"')
})
