// The filters of `postgres_changes`, each bound in one channel.
import { expect } from 'vitest'
import type { ChangesOptions, Json } from '../performer.ts'
import type { Scenario, Scene } from '../world.ts'

const things = `CREATE TABLE things (id int PRIMARY KEY, name text, n int, ok boolean);
  GRANT SELECT ON things TO anon`

/** The last one marks the end: it comes to who has no filter. */
const rows = [
  `(1, 'Ann', 5, true)`,
  `(2, 'bob', 10, false)`,
  `(3, 'Cy, "the" (third)', NULL, NULL)`,
  `(4, 'a%b', 20, true)`,
  `(5, 'back\\slash', -1, NULL)`,
  `(6, NULL, 7, false)`,
]

/** Ids of the rows above that each takes. */
const filters: readonly (readonly [filter: string, ids: readonly number[]])[] = [
  ['', [1, 2, 3, 4, 5, 6]],
  ['id=eq.1', [1]],
  ['name=eq.bob', [2]],
  ['id=neq.1', [2, 3, 4, 5, 6]],
  ['n=lt.7', [1, 5]],
  ['n=lte.7', [1, 5, 6]],
  ['n=gt.7', [2, 4]],
  ['n=gte.7', [2, 4, 6]],
  ['name=in.(Ann,bob,nobody)', [1, 2]],
  ['name=in.("Cy, \\"the\\" (third)",Ann)', [1, 3]],
  [`id=in.(${Array.from({ length: 100 }, (_, i) => i + 3).join()})`, [3, 4, 5, 6]],
  ['name=like.%b', [2, 4]],
  ['name=like.a\\%b', [4]],
  ['name=ilike.a%', [1, 4]],
  ['n=is.null', [3]],
  ['ok=is.true', [1, 4]],
  ['ok=is.false', [2, 6]],
  ['ok=is.unknown', [3, 5]],
  ['n=isdistinct.5', [2, 3, 4, 5, 6]],
  ['name=match.^[A-Z]', [1, 3]],
  ['name=imatch.^A', [1, 4]],
  ['name=not.match.^[A-Z]', [2, 4, 5]],
  ['name=isdistinct.bob', [1, 3, 4, 5, 6]],
  ['id=not.eq.1', [2, 3, 4, 5, 6]],
  ['n=not.lt.7', [2, 4, 6]],
  ['name=not.in.(Ann,bob)', [3, 4, 5]],
  ['name=not.like.%b', [1, 3, 5]],
  ['name=not.ilike.a%', [2, 3, 5]],
  ['n=not.is.null', [1, 2, 4, 5, 6]],
  ['n=not.isdistinct.5', [1]],
  ['id=gt.1,id=lt.5', [2, 3, 4]],
  ['n=gte.5,ok=is.true,name=not.eq.Ann', [4]],
  ['name=eq."Cy, \\"the\\" (third)"', [3]],
  ['name=eq."Cy, \\"the\\" (third)",id=lt.9', [3]],
  ['name=eq."back\\\\slash"', [5]],
]

export const filterScenarios: readonly Scenario[] = [
  {
    name: 'every filter',
    tables: () => things,
    tracked: ['things'],
    async play(scene) {
      await expectFiltered(
        scene,
        filters.map(([filter, ids]) => [{ filter }, ids]),
      )
    },
  },
  {
    name: 'filters that are built',
    tables: () => things,
    tracked: ['things'],
    not: ({ version }) => (version === '2.83.0' ? 'there is no builder in it' : null),
    async play(scene) {
      const built: [(readonly [string, ...Json[]])[], readonly number[]][] = [
        [[['eq', 'id', 1]], [1]],
        [[['neq', 'name', 'bob']], [1, 3, 4, 5]],
        [
          [
            ['gt', 'id', 1],
            ['lt', 'id', 5],
          ],
          [2, 3, 4],
        ],
        [
          [
            ['gte', 'n', 5],
            ['lte', 'n', 10],
          ],
          [1, 2, 6],
        ],
        [[['in', 'name', ['Cy, "the" (third)', 'back\\slash', 'Ann']]], [1, 3, 5]],
        [[['like', 'name', 'a\\%b']], [4]],
        [[['ilike', 'name', 'A%']], [1, 4]],
        [[['is', 'ok', null]], [3, 5]],
        [[['is', 'ok', true]], [1, 4]],
        [[['match', 'name', '^.{3}$']], [1, 2, 4]],
        [[['imatch', 'name', '(ann|BOB)']], [1, 2]],
        [[['isDistinct', 'name', 'bob']], [1, 3, 4, 5, 6]],
        [[['not', 'name', 'in', ['Ann', 'bob']]], [3, 4, 5]],
        [[['not', 'n', 'is', null]], [1, 2, 4, 5, 6]],
        [[['eq', 'name', 'Cy, "the" (third)']], [3]],
      ]
      await expectFiltered(
        scene,
        built.map(([calls, ids]) => [{ built: calls }, ids]),
      )
    },
  },
  {
    name: 'regular expressions that Postgres alone knows',
    tables: () => things,
    tracked: ['things'],
    async play(scene) {
      const { schema } = scene
      const client = await scene.client()
      const asked = ['name=match.(.)\\1', 'name=imatch.(n)\\1', 'name=not.match.a(?=n)']
      const room = await client.enter(scene.topic(), {
        changes: [...asked, 'id=gt.0'].map(filter => ({ event: '*', schema, table: 'things', filter })),
      })
      await scene.query(`INSERT INTO things VALUES ${rows.join(', ')}`)
      await room.change(6, asked.length)
      // Refused by code, instead of judged otherwise.
      expect(room.systems.filter(({ status }) => status === 'error').map(({ message }) => message)).toEqual(
        asked.map(() => expect.stringMatching(/^FILTER_UNSUPPORTED: /)),
      )
      expect(asked.flatMap((_, binding) => room.changes(binding))).toEqual([])
    },
  },
  {
    name: 'rows that enter and leave a filter',
    tables: () => things,
    tracked: ['things'],
    async play(scene) {
      const { schema } = scene
      const filter = 'n=eq.5'
      const client = await scene.client()
      const room = await client.enter(scene.topic(), {
        changes: ['*', 'INSERT', 'UPDATE', 'DELETE'].map(event => ({ event, schema, table: 'things', filter })),
      })
      await scene.query(`INSERT INTO things VALUES (1, 'a', 1)`)
      await scene.query('UPDATE things SET n = 5 WHERE id = 1')
      await scene.query(`UPDATE things SET name = 'b' WHERE id = 1`)
      await scene.query('UPDATE things SET n = 6 WHERE id = 1')
      await scene.query('DELETE FROM things')
      await scene.query(`INSERT INTO things VALUES (9, 'end', 5)`)
      await room.change(9, 0)
      await room.change(9, 1)
      expect(room.ops(0)).toEqual(['INSERT 1', 'UPDATE 1', 'DELETE 1', 'INSERT 9'])
      expect(room.ops(1)).toEqual(['INSERT 1', 'INSERT 9'])
      expect(room.ops(2)).toEqual(['UPDATE 1', 'UPDATE 1'])
      expect(room.ops(3)).toEqual(['DELETE 1'])
      expect(room.changes(0)[2]?.old).toEqual({ id: 1, name: 'b', n: 5, ok: null })
    },
  },
]

/** Which rows come with each, as INSERT and as DELETE. */
async function expectFiltered(
  scene: Scene,
  wanted: readonly (readonly [Pick<ChangesOptions, 'filter' | 'built'>, readonly number[]])[],
): Promise<void> {
  const { schema } = scene
  const client = await scene.client()
  const changes = wanted.map(([filter]) => ({ event: '*', schema, table: 'things', ...filter }))
  const room = await client.enter(scene.topic(), { changes: [...changes, { event: '*', schema, table: 'things' }] })
  expect(room.systems.filter(({ status }) => status === 'error')).toEqual([])
  await scene.query(`INSERT INTO things VALUES ${rows.join(', ')}`)
  await scene.query('DELETE FROM things')
  await scene.query(`INSERT INTO things VALUES (1000, 'zzz', 1000, NULL)`)
  await room.change(1000, wanted.length)
  const told = wanted.map(([filter], binding) => [
    filter,
    ...(['INSERT', 'DELETE'] as const).map(type =>
      room
        .changes(binding)
        .filter(each => each.eventType === type && each.new.id !== 1000)
        .map(each => each.new.id ?? each.old.id),
    ),
  ])
  expect(told).toEqual(wanted.map(([filter, ids]) => [filter, ids, ids]))
}
