import type pg from 'pg'
import { expect, test } from 'vitest'
import { Site } from './site.ts'

interface Call {
  readonly columns: readonly string[]
  readonly match?: readonly string[]
  readonly keys?: readonly (readonly (string | null)[])[]
  readonly after?: readonly string[]
  readonly max?: number
}

async function read(client: pg.ClientBase, name: string, call: Call): Promise<(string | null)[][]> {
  const { rows } = await client.query<{ row: (string | null)[] }>(
    `SELECT f AS row FROM tidegate."${name}"($1, $2, $3, $4, $5) f`,
    [
      call.columns,
      call.match ?? [],
      call.keys === undefined ? null : JSON.stringify(call.keys),
      call.after === undefined ? null : JSON.stringify(call.after),
      call.max ?? null,
    ],
  )
  return rows.map(({ row }) => row)
}

const reading = async <T>(setup: string, tables: string[], use: (client: pg.Client, site: Site) => Promise<T>) => {
  await using site = await Site.create()
  await site.app.query(setup)
  await site.track(tables)
  return await site.asLogin(client => use(client, site))
}

test('[P1] the login that may read nothing of a guarded table reads it whole through its function, and only so', async () => {
  await reading('', ['app.messages'], async client => {
    await expect(client.query('SELECT * FROM app.messages')).rejects.toMatchObject({ code: '42501' })
    const rows = await read(client, 'app.messages', { columns: ['body', 'id'] })
    expect(rows.sort()).toEqual([
      ['a', '1'],
      ['b', '2'],
      ['c', '3'],
    ])
  })
})

test('rows come by keys of one or several columns; a null in a key and an unknown key match nothing', async () => {
  await reading('INSERT INTO messages VALUES (4, 1, null)', ['app.messages'], async client => {
    const byRoom = { columns: ['id'], match: ['room_id'], keys: [['2'], ['2'], ['9'], [null]] }
    expect(await read(client, 'app.messages', byRoom)).toEqual([['3']])
    const byBoth = {
      columns: ['id'],
      match: ['body', 'room_id'],
      keys: [
        ['a', '1'],
        ['a', '2'],
        [null, '1'],
      ],
    }
    expect(await read(client, 'app.messages', byBoth)).toEqual([['1']])
    expect(await read(client, 'app.messages', { columns: ['id'], match: ['id'], keys: [] })).toEqual([])
  })
})

test('rows come in chunks by the primary key, of several columns and of text, each once', async () => {
  const setup = `CREATE TABLE pages (book text, page integer, PRIMARY KEY (book, page));
    INSERT INTO pages SELECT b, p FROM unnest('{a,B,"c d",é}'::text[]) b, generate_series(1, 5) p`
  await reading(setup, ['app.pages'], async client => {
    const seen: string[] = []
    let after: string[] | undefined
    for (;;) {
      const rows = await read(client, 'app.pages', { columns: ['book', 'page'], max: 3, ...(after && { after }) })
      seen.push(...rows.map(row => row.join(' ')))
      if (rows.length < 3) break
      after = rows.at(-1) as string[]
    }
    const { rows } = await client.query(
      `SELECT b || ' ' || p AS key FROM unnest('{a,B,"c d",é}'::text[]) b, generate_series(1, 5) p ORDER BY b, p`,
    )
    expect(seen).toEqual(rows.map(row => row.key))
    expect(await read(client, 'app.pages', { columns: ['book'], after: ['é', '4'] })).toEqual([['é']])
  })
})

test('values have the text of the log, not of a cast: booleans, padded characters, addresses, composites', async () => {
  const setup = `CREATE TYPE pair AS (a integer, b text);
    CREATE TABLE kinds (id integer PRIMARY KEY, flag boolean, code char(3), host inet, at timestamptz, raw bytea, list integer[], two pair, d date);
    INSERT INTO kinds VALUES (1, true, 'x', '10.0.0.1', '2024-01-02 03:04:05+00', '\\x01ff', '{1,null}', ROW(null, null), '2024-01-02');
    INSERT INTO kinds (id) VALUES (2)`
  await reading(setup, ['app.kinds'], async client => {
    await client.query("SET TimeZone = 'UTC'")
    const columns = ['flag', 'code', 'host', 'at', 'raw', 'list', 'two', 'd']
    const { rows } = await client.query({
      text: `SELECT true, 'x'::char(3), '10.0.0.1'::inet, '2024-01-02 03:04:05+00'::timestamptz, '\\x01ff'::bytea, '{1,null}'::integer[], '(,)', '2024-01-02'::date`,
      rowMode: 'array',
      types: { getTypeParser: () => (value: string) => value } as unknown as pg.CustomTypesConfig,
    })
    expect(await read(client, 'app.kinds', { columns, max: 1 })).toEqual(rows)
    expect(await read(client, 'app.kinds', { columns, after: ['1'] })).toEqual([columns.map(() => null)])
  })
})

test('keys of domains, enums, padded and limited characters are found', async () => {
  const setup = `CREATE DOMAIN small AS integer CHECK (VALUE < 10); CREATE DOMAIN smaller AS small; CREATE TYPE mood AS ENUM ('sad', 'glad');
    CREATE TABLE odd (id smaller PRIMARY KEY, mood mood, code char(3), flags varchar(2));
    INSERT INTO odd VALUES (1, 'glad', 'x', 'ab')`
  await reading(setup, ['app.odd'], async client => {
    expect(await read(client, 'app.odd', { columns: ['id'], match: ['id'], keys: [['1'], ['99']] })).toEqual([['1']])
    expect(await read(client, 'app.odd', { columns: ['id'], match: ['mood'], keys: [['glad']] })).toEqual([['1']])
    expect(await read(client, 'app.odd', { columns: ['id'], match: ['code'], keys: [['x  ']] })).toEqual([['1']])
    // Cut to the column's length 'abc' would be found.
    expect(await read(client, 'app.odd', { columns: ['id'], match: ['flags'], keys: [['abc']] })).toEqual([])
    expect(await read(client, 'app.odd', { columns: ['id'], after: ['0'] })).toEqual([['1']])
  })
})

test('[P8] an unknown column raises, whatever it is called; so does a system column, and a dropped table', async () => {
  await reading('', ['app.messages'], async (client, site) => {
    for (const name of ['bodyy', 'ctid', 'id) FROM app.messages; DROP TABLE app.messages; --', ''])
      for (const call of [{ columns: [name] }, { columns: ['id'], match: [name], keys: [['1']] }])
        await expect(read(client, 'app.messages', call)).rejects.toMatchObject({ code: '42703' })
    await site.app.query('DROP TABLE messages')
    await expect(read(client, 'app.messages', { columns: ['id'] })).rejects.toMatchObject({
      code: '42P01',
      message: 'the table app.messages does not exist any more',
    })
  })
})

test('nobody but the login may call it, and a name that closes its quotes stays a name', async () => {
  const evil = `x'$tidegate$"; DROP TABLE messages; --`
  const quoted = `"${evil.replaceAll('"', '""')}"`
  await reading(
    `CREATE TABLE ${quoted} (id integer PRIMARY KEY); INSERT INTO ${quoted} VALUES (7)`,
    [`app.${evil}`, 'app.messages'],
    async (client, site) => {
      const { rows } = await client.query(
        `SELECT f FROM tidegate."app.${evil.replaceAll('"', '""')}"('{id}', '{}', null, null, null) f`,
      )
      expect(rows).toEqual([{ f: ['7'] }])
      const other = `${site.database.name}_other`
      await site.database.query(`CREATE ROLE ${other}; GRANT USAGE ON SCHEMA tidegate TO ${other}`)
      try {
        const call = `SET ROLE ${other}; SELECT tidegate."app.messages"('{id}', '{}', null, null, null)`
        await expect(site.database.query(call)).rejects.toMatchObject({ code: '42501' })
      } finally {
        await site.database.query(`RESET ROLE; REVOKE USAGE ON SCHEMA tidegate FROM ${other}; DROP ROLE ${other}`)
      }
    },
  )
})

test('few keys go by index in a large table, and so do chunks', async () => {
  const setup = `CREATE TABLE big (id bigint PRIMARY KEY, room_id integer NOT NULL, body text);
    INSERT INTO big SELECT i, i % 500, 'x' FROM generate_series(1, 100000) i; CREATE INDEX ON big (room_id); ANALYZE big`
  await reading(setup, ['app.big'], async (_, site) => {
    const scans = async (call: Call): Promise<{ seq_scan: number; idx_scan: number }> => {
      await site.database.query('BEGIN')
      await read(site.database.client, 'app.big', call)
      const [row] = await site.database.query<{ seq_scan: number; idx_scan: number }>(
        `SELECT seq_scan::int, idx_scan::int FROM pg_stat_xact_user_tables WHERE relid = 'app.big'::regclass`,
      )
      await site.database.query('COMMIT')
      return row!
    }
    const calls: Call[] = [
      { columns: ['id'], match: ['room_id'], keys: [['7']] },
      { columns: ['id'], match: ['id'], keys: Array.from({ length: 300 }, (_each, i) => [String(i * 3)]) },
      { columns: ['id'], after: ['5000'], max: 100 },
      { columns: ['id'], max: 100 },
    ]
    for (const call of calls) {
      const { seq_scan, idx_scan } = await scans(call)
      expect({ call: JSON.stringify(call).slice(0, 60), seq_scan, byIndex: idx_scan > 0 }).toMatchObject({
        seq_scan: 0,
        byIndex: true,
      })
    }
  })
})

test('[P1] where FORCE ROW LEVEL SECURITY filters even the owner, the function raises instead of reading less', async () => {
  await reading('ALTER TABLE messages FORCE ROW LEVEL SECURITY', ['app.messages'], async client => {
    await expect(read(client, 'app.messages', { columns: ['id'] })).rejects.toMatchObject({ code: '42501' })
  })
})
