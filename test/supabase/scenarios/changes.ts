// `postgres_changes`: what is told of which commit, to whom.
import { randomUUID } from 'node:crypto'
import { expect } from 'vitest'
import type { ChangesOptions } from '../performer.ts'
import type { Scenario } from '../world.ts'

const todos = `CREATE TABLE todos (id int PRIMARY KEY, task text, done boolean NOT NULL DEFAULT false);
  GRANT SELECT ON todos TO anon, authenticated`
const all = (schema: string, table: string): ChangesOptions => ({ event: '*', schema, table })

/** Readable by whoever owns the row, as it is after the change or was before it. */
const owned = `CREATE TABLE notes (id int PRIMARY KEY, owner uuid NOT NULL, body text);
  ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON notes FOR SELECT TO authenticated USING (owner = (SELECT auth.uid()));
  GRANT SELECT ON notes TO authenticated;`

export const changes: readonly Scenario[] = [
  {
    name: 'insert update delete',
    tables: () => todos,
    tracked: ['todos'],
    async play(scene) {
      const { schema } = scene
      const client = await scene.client()
      const room = await client.enter(scene.topic(), {
        changes: ['INSERT', 'UPDATE', 'DELETE', '*'].map(event => ({ event, schema, table: 'todos' })),
      })
      await scene.query(`INSERT INTO todos VALUES (1, 'write')`)
      await scene.query(`UPDATE todos SET done = true WHERE id = 1`)
      await scene.query('DELETE FROM todos WHERE id = 1')
      await scene.query(`INSERT INTO todos VALUES (2, 'end')`)
      await room.change(2, 3)
      await room.change(2, 0)
      const first = { id: 1, task: 'write', done: false }
      const second = { id: 1, task: 'write', done: true }
      const end = { id: 2, task: 'end', done: false }
      const told = [
        { eventType: 'INSERT', new: first, old: {} },
        { eventType: 'UPDATE', new: second, old: first },
        { eventType: 'DELETE', new: {}, old: second },
        { eventType: 'INSERT', new: end, old: {} },
      ].map(each => ({ ...each, schema, table: 'todos', errors: null, commit_timestamp: expect.any(String) }))
      expect(room.changes(3)).toEqual(told)
      expect(room.changes(0)).toEqual([told[0], told[3]])
      expect(room.changes(1)).toEqual([told[1]])
      expect(room.changes(2)).toEqual([told[2]])
      for (const { commit_timestamp } of room.changes(3))
        expect(Math.abs(Date.now() - Date.parse(commit_timestamp))).toBeLessThan(120_000)
    },
  },
  {
    name: 'values of every type',
    tables: () => `CREATE TYPE mood AS ENUM ('sad', 'glad');
      CREATE TABLE things (id int8 PRIMARY KEY, small int2, amount numeric(10,2), ratio float8, ok boolean, words text[], numbers int[],
        doc jsonb, plain json, at timestamptz, local_at timestamp, day date, ref uuid, mood mood, span int4range, bin bytea, nothing text);
      GRANT SELECT ON things TO anon`,
    tracked: ['things'],
    async play(scene) {
      const client = await scene.client()
      const room = await client.enter(scene.topic(), { changes: [all(scene.schema, 'things')] })
      const ref = randomUUID()
      await scene.query(`INSERT INTO things VALUES (1, 2, 12.50, 0.25, true, ARRAY['a, b', 'c"d'], '{1,2,NULL}', '{"a": [1, {"b": null}]}',
        '{"x":"y"}', '2026-01-02 03:04:05+00', '2026-01-02 03:04:05', '2026-01-02', '${ref}', 'glad', '[1,5)', '\\x0102ff', NULL)`)
      await room.change(1)
      expect(room.changes()[0]?.new).toEqual({
        id: 1,
        small: 2,
        amount: 12.5,
        ratio: 0.25,
        ok: true,
        words: ['a, b', 'c"d'],
        numbers: [1, 2, null],
        doc: { a: [1, { b: null }] },
        plain: { x: 'y' },
        at: '2026-01-02T03:04:05+00:00',
        local_at: '2026-01-02T03:04:05',
        day: '2026-01-02',
        ref,
        mood: 'glad',
        span: '[1,5)',
        bin: '0102ff',
        nothing: null,
      })
    },
  },
  {
    name: 'schemas and tables by wildcard',
    tables: schema => `${todos}; CREATE TABLE others (id int PRIMARY KEY); GRANT SELECT ON others TO anon;
      CREATE TABLE hidden (id int PRIMARY KEY);
      CREATE TABLE public.${schema} (id int PRIMARY KEY); GRANT SELECT ON public.${schema} TO anon`,
    tracked: ['todos', 'others', 'hidden', 'public.{}'],
    async play(scene) {
      const { schema } = scene
      const client = await scene.client()
      const room = await client.enter(scene.topic(), {
        changes: [
          { event: '*', schema },
          { event: 'INSERT', schema, table: '*' },
          { event: 'INSERT', schema: '*', table: 'others' },
          { event: '*', table: schema } as ChangesOptions,
          { event: '*', schema: '*' },
        ],
      })
      await scene.query('INSERT INTO hidden VALUES (1)')
      await scene.query('INSERT INTO todos VALUES (2)')
      await scene.query('INSERT INTO others VALUES (3)')
      await scene.query(`INSERT INTO public.${schema} VALUES (4)`)
      await scene.query('DELETE FROM todos')
      // The last binding hears of what other scenarios do, too.
      const end = 1_000_000 + Math.floor(Math.random() * 100_000_000)
      await scene.query(`INSERT INTO others VALUES (${end})`)
      for (const binding of [0, 1, 2, 4]) await room.change(end, binding)
      const mine = (binding: number): string[] =>
        room
          .changes(binding)
          .filter(each => each.schema === schema || each.table === schema)
          .map(({ table, eventType, new: row, old }) => `${table} ${eventType} ${row.id ?? old.id}`)
      const inSchema = ['todos INSERT 2', 'others INSERT 3', 'todos DELETE 2', `others INSERT ${end}`]
      expect(mine(0)).toEqual(inSchema)
      expect(mine(1)).toEqual(inSchema.filter(each => each.includes('INSERT')))
      expect(mine(2)).toEqual(['others INSERT 3', `others INSERT ${end}`])
      expect(mine(3)).toEqual([`${schema} INSERT 4`])
      expect(mine(4)).toEqual([...inSchema.slice(0, 2), `${schema} INSERT 4`, ...inSchema.slice(2)])
    },
  },
  {
    name: 'selected columns',
    tables: () => todos,
    tracked: ['todos'],
    async play(scene) {
      const { schema } = scene
      const client = await scene.client()
      const room = await client.enter(scene.topic(), {
        changes: [
          { event: '*', schema, table: 'todos', select: ['task'] },
          { event: 'INSERT', schema, table: 'todos', select: [] },
        ],
      })
      await scene.query(`INSERT INTO todos VALUES (1, 'write')`)
      await scene.query(`UPDATE todos SET task = 'read' WHERE id = 1`)
      await scene.query(`INSERT INTO todos VALUES (2, 'end')`)
      await room.change(2, 0)
      await room.change(2, 1)
      expect(room.changes(0).map(each => [each.new, each.old])).toEqual([
        [{ id: 1, task: 'write' }, {}],
        [
          { id: 1, task: 'read' },
          { id: 1, task: 'write' },
        ],
        [{ id: 2, task: 'end' }, {}],
      ])
      expect(room.changes(1)[0]?.new).toEqual({ id: 1, task: 'write', done: false })
    },
  },
  {
    name: 'old record by replica identity',
    tables: () => `${todos}; CREATE TABLE plain (id int PRIMARY KEY, task text); GRANT SELECT ON plain TO anon`,
    tracked: ['todos', 'plain'],
    afterwards: schema => `ALTER TABLE ${schema}.plain REPLICA IDENTITY DEFAULT;`,
    async play(scene) {
      const client = await scene.client()
      const room = await client.enter(scene.topic(), {
        changes: [all(scene.schema, 'plain'), all(scene.schema, 'todos')],
      })
      for (const table of ['plain', 'todos']) {
        await scene.query(`INSERT INTO ${table} VALUES (1, 'a')`)
        await scene.query(`UPDATE ${table} SET task = 'b' WHERE id = 1`)
        await scene.query(`DELETE FROM ${table}`)
        await scene.query(`INSERT INTO ${table} VALUES (2, 'end')`)
      }
      await room.change(2, 1)
      await room.change(2, 0)
      expect(room.changes(0).map(each => [each.eventType, each.old])).toEqual([
        ['INSERT', {}],
        ['UPDATE', { id: 1 }],
        ['DELETE', { id: 1 }],
        ['INSERT', {}],
      ])
      expect(room.changes(1).map(each => [each.eventType, each.old])).toEqual([
        ['INSERT', {}],
        ['UPDATE', { id: 1, task: 'a', done: false }],
        ['DELETE', { id: 1, task: 'b', done: false }],
        ['INSERT', {}],
      ])
    },
  },
  {
    name: 'row level security at each commit',
    tables: () => owned,
    tracked: ['notes'],
    async play(scene) {
      const [ann, bob] = [randomUUID(), randomUUID()]
      const rooms = []
      for (const sub of [ann, bob]) {
        const client = await scene.client({ sub })
        rooms.push(await client.enter(scene.topic(sub), { changes: [all(scene.schema, 'notes')] }))
      }
      const anon = await (await scene.client()).enter(scene.topic('anon'), { changes: [all(scene.schema, 'notes')] })
      await scene.query(`INSERT INTO notes VALUES (1, '${ann}', 'of ann'), (2, '${bob}', 'of bob')`)
      await scene.query(`UPDATE notes SET body = 'again ' || body`)
      await scene.query(`UPDATE notes SET owner = '${bob}' WHERE id = 1`)
      await scene.query('DELETE FROM notes WHERE id = 1')
      await scene.query('DELETE FROM notes')
      await scene.query(`INSERT INTO notes VALUES (8, '${ann}', 'end'), (9, '${bob}', 'end')`)
      await rooms[0]!.change(8)
      await rooms[1]!.change(9)
      expect(rooms[0]!.ops()).toEqual(['INSERT 1', 'UPDATE 1', 'DELETE 1', 'INSERT 8'])
      expect(rooms[1]!.ops()).toEqual(['INSERT 2', 'UPDATE 2', 'INSERT 1', 'DELETE 1', 'DELETE 2', 'INSERT 9'])
      // Nothing of before it was bob's.
      expect(rooms[1]!.changes().find(each => each.new.id === 1)?.old).toEqual({})
      // A table that the role may not read at all is told of, and of none of its rows.
      expect(anon.changes()).toEqual([])
      expect(anon.systems.filter(({ status }) => status === 'error')).toHaveLength(1)
    },
  },
  {
    name: 'membership that ends and begins',
    tables: () => `CREATE TABLE members (room int, user_id uuid, PRIMARY KEY (room, user_id));
      CREATE TABLE messages (id int PRIMARY KEY, room int, body text);
      ALTER TABLE members ENABLE ROW LEVEL SECURITY; ALTER TABLE messages ENABLE ROW LEVEL SECURITY;
      CREATE POLICY own ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
      CREATE POLICY members ON messages FOR SELECT TO authenticated USING (room = 0 OR EXISTS (
        SELECT 1 FROM members m WHERE m.room = messages.room AND m.user_id = (SELECT auth.uid())));
      GRANT SELECT ON members, messages TO authenticated`,
    tracked: ['members', 'messages'],
    async play(scene) {
      const ann = randomUUID()
      const proxy = await scene.proxy()
      const client = await scene.client({ sub: ann, url: proxy.url })
      await scene.query(`INSERT INTO members VALUES (1, '${ann}')`)
      const room = await client.enter(scene.topic(), {
        changes: [{ event: 'INSERT', schema: scene.schema, table: 'messages', filter: 'body=neq.none' }],
      })
      await scene.query(`INSERT INTO messages VALUES (1, 1, 'a')`)
      await scene.query(`DELETE FROM members WHERE user_id = '${ann}'`)
      await scene.query(`INSERT INTO messages VALUES (2, 1, 'b')`)
      await scene.query(`INSERT INTO messages VALUES (3, 0, 'marker')`)
      await room.change(3)
      expect(room.ops()).toEqual(['INSERT 1', 'INSERT 3'])
      // Also to one who comes back.
      proxy.link.cut()
      await room.subscribed(2)
      await scene.query(`INSERT INTO messages VALUES (4, 1, 'c')`)
      await scene.query(`INSERT INTO members VALUES (1, '${ann}')`)
      await scene.query(`INSERT INTO messages VALUES (5, 1, 'd')`)
      await room.change(5)
      // Row 2 came into view with the membership; row 3, told just before the break, may come again.
      const shown = room.changes().filter(each => each.new.id !== 3)
      expect(shown.map(each => each.new.id).filter(id => id !== 2 && id !== 4)).toEqual([1, 5])
      expect(room.changes().find(each => each.new.id === 2)?.eventType).not.toBe('UPDATE')
    },
  },
  {
    name: 'column privileges',
    tables: () => `CREATE TABLE people (id int PRIMARY KEY, name text, secret text);
      GRANT SELECT (id, name) ON people TO anon`,
    tracked: ['people'],
    async play(scene) {
      const { schema } = scene
      const client = await scene.client()
      const room = await client.enter(scene.topic(), {
        changes: [
          all(schema, 'people'),
          { event: '*', schema, table: 'people', filter: 'secret=eq.x' },
          { event: '*', schema, table: 'people', select: ['secret'] },
        ],
      })
      await scene.query(`INSERT INTO people VALUES (1, 'ann', 'x')`)
      await scene.query(`UPDATE people SET secret = 'y', name = 'bea' WHERE id = 1`)
      await scene.query(`DELETE FROM people`)
      await scene.query(`INSERT INTO people VALUES (2, 'end', 'x')`)
      await room.change(2)
      expect(room.changes().map(each => [each.eventType, each.new, each.old])).toEqual([
        ['INSERT', { id: 1, name: 'ann' }, {}],
        ['UPDATE', { id: 1, name: 'bea' }, { id: 1, name: 'ann' }],
        ['DELETE', {}, { id: 1, name: 'bea' }],
        ['INSERT', { id: 2, name: 'end' }, {}],
      ])
      expect([room.changes(1), room.changes(2)]).toEqual([[], []])
      expect(room.systems.filter(({ status }) => status === 'error')).toHaveLength(2)
      expect(JSON.stringify(room.told)).not.toMatch(/"[xy]"/)
    },
  },
  {
    name: 'bindings that cannot work',
    tables: () => `${todos}; CREATE VIEW open_todos AS SELECT * FROM todos; GRANT SELECT ON open_todos TO anon;
      CREATE TABLE nameless (n int); GRANT SELECT ON nameless TO anon;
      CREATE TABLE shut (id int PRIMARY KEY)`,
    tracked: ['todos', 'shut'],
    async play(scene) {
      const { schema } = scene
      const client = await scene.client()
      const bad: ChangesOptions[] = [
        all(schema, 'nowhere'),
        all(schema, 'open_todos'),
        all(schema, 'nameless'),
        all(schema, 'shut'),
        { event: '*', schema, table: 'todos', filter: 'nothing=eq.1' },
        { event: '*', schema, table: 'todos', filter: 'id=near.1' },
        { event: '*', schema, table: 'todos', filter: 'id=eq.one' },
        { event: '*', schema, table: 'todos', filter: 'task=match.(' },
        { event: '*', schema, table: 'todos', filter: `id=in.(${Array.from({ length: 101 }, (_, i) => i).join()})` },
        { event: '*', schema, table: '*', select: ['id'] },
      ]
      const room = await client.enter(scene.topic(), { changes: [...bad, all(schema, 'todos')] })
      await scene.query(`INSERT INTO todos VALUES (1, 'a')`)
      await room.change(1, bad.length)
      const errors = room.systems.filter(({ status }) => status === 'error')
      expect(errors).toHaveLength(bad.length)
      for (const each of errors)
        expect(each).toEqual({
          extension: 'postgres_changes',
          status: 'error',
          channel: scene.topic(),
          message: expect.stringMatching(/\w{5}/),
        })
      expect(bad.map((_, binding) => room.changes(binding))).toEqual(bad.map(() => []))
      expect(room.statuses).toEqual(['SUBSCRIBED'])
    },
  },
  {
    name: 'one row beyond a megabyte',
    tables: () => todos,
    tracked: ['todos'],
    async play(scene) {
      const client = await scene.client()
      const room = await client.enter(scene.topic(), { changes: [all(scene.schema, 'todos')] })
      await scene.query(`INSERT INTO todos VALUES (1, repeat('long ', 400000))`)
      await scene.query(`INSERT INTO todos VALUES (2, 'end')`)
      await room.change(2)
      expect(room.ops()).toEqual(['INSERT 1', 'INSERT 2'])
      expect(String(room.changes()[0]?.new.task)).toHaveLength(2_000_000)
      expect(room.statuses).toEqual(['SUBSCRIBED'])
    },
  },
  {
    name: 'order of commits',
    tables: () => `${todos}; CREATE TABLE others (id int PRIMARY KEY); GRANT SELECT ON others TO anon`,
    tracked: ['todos', 'others'],
    async play(scene) {
      const client = await scene.client()
      const room = await client.enter(scene.topic(), {
        changes: [all(scene.schema, 'todos'), all(scene.schema, 'others')],
      })
      for (let id = 1; id <= 40; id += 2) {
        await scene.query(`INSERT INTO todos VALUES (${id})`)
        await scene.query(`INSERT INTO others VALUES (${id + 1})`)
      }
      await scene.query('INSERT INTO todos SELECT * FROM generate_series(1001, 1500)')
      await scene.query(`INSERT INTO todos VALUES (2000, 'end')`)
      await room.change(2000)
      const ids = room.of('change').map(([, change]) => (change as { new: { id: number } }).new.id)
      expect(ids).toEqual([
        ...Array.from({ length: 40 }, (_, i) => i + 1),
        ...Array.from({ length: 500 }, (_, i) => 1001 + i),
        2000,
      ])
    },
  },
  {
    name: 'subscribed means that changes flow',
    tables: () => todos,
    tracked: ['todos'],
    async play(scene) {
      const client = await scene.client()
      const rooms = await Promise.all(
        Array.from({ length: 8 }, async (_, index) => {
          const room = await client.join(scene.topic(`${index}`), {
            ...(index % 2 === 0 ? {} : { config: { postgres_changes_options: { wait: true } } }),
            changes: [all(scene.schema, 'todos')],
          })
          await room.subscribed()
          await scene.query(`INSERT INTO todos VALUES (${index + 1})`)
          await room.change(index + 1)
          return room
        }),
      )
      await scene.query('INSERT INTO todos VALUES (100)')
      for (const room of rooms) {
        await room.change(100)
        const ids = room.changes().map(each => each.new.id as number)
        expect(ids).toEqual([...new Set(ids)])
        await room.until('the system message', () => room.systems.length > 0)
        expect(room.systems).toEqual([
          { extension: 'postgres_changes', status: 'ok', message: 'Subscribed to PostgreSQL', channel: room.topic },
        ])
      }
    },
  },
  {
    name: 'changes missed while away',
    tables: () => todos,
    tracked: ['todos'],
    async play(scene) {
      const proxy = await scene.proxy()
      const client = await scene.client({ url: proxy.url })
      const room = await client.enter(scene.topic(), { changes: [all(scene.schema, 'todos')] })
      await scene.query('INSERT INTO todos VALUES (1)')
      await room.change(1)
      for (let round = 1; round <= 2; round++) {
        proxy.link.isRefusing = true
        proxy.link.cut()
        await room.status('CHANNEL_ERROR', round)
        await scene.query(`INSERT INTO todos VALUES (${round * 10})`)
        await scene.query(`UPDATE todos SET done = true WHERE id = ${round * 10}`)
        proxy.link.isRefusing = false
        await room.subscribed(round + 1)
        await scene.query(`INSERT INTO todos VALUES (${round * 10 + 1})`)
        await room.change(round * 10 + 1)
      }
      // What was told just before the socket broke may come again: nobody can know that it arrived.
      const ops = room.ops()
      expect(ops.filter((each, index) => ops.indexOf(each) === index)).toEqual([
        ...['INSERT 1', 'INSERT 10', 'UPDATE 10', 'INSERT 11'],
        ...['INSERT 20', 'UPDATE 20', 'INSERT 21'],
      ])
    },
  },
  {
    name: 'truncated table',
    tables: () => todos,
    tracked: ['todos'],
    async play(scene) {
      const client = await scene.client()
      const room = await client.enter(scene.topic(), { changes: [all(scene.schema, 'todos')] })
      await scene.query('INSERT INTO todos VALUES (1)')
      await room.change(1)
      await scene.query('TRUNCATE todos')
      await room.status('CHANNEL_ERROR')
      await room.subscribed(2)
      await scene.query('INSERT INTO todos VALUES (2)')
      await room.change(2)
      expect(room.ops()).toEqual(['INSERT 1', 'INSERT 2'])
      expect(room.statuses).toEqual(['SUBSCRIBED', 'CHANNEL_ERROR', 'SUBSCRIBED'])
    },
  },
]
