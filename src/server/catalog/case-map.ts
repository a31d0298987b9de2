// lower() of a collation, asked of Postgres itself: every table of our own would differ from the server's libc somewhere.
import { type Kysely, sql } from 'kysely'

/** Reads what lower() changes, character by character; about 1,400 entries, 131,071 calls in Postgres.
 *  @returns characters whose lower() is another text, up to U+1FFFF, past which Unicode has no cases */
export async function readCaseMap(
  db: Kysely<unknown>,
  collation: { readonly schema: string; readonly name: string },
): Promise<ReadonlyMap<string, string>> {
  const collate = sql.id(collation.schema, collation.name)
  // chr() raises on surrogates.
  const { rows } = await sql<{ upper: string; lower: string }>`
    SELECT chr(i) AS upper, lower(chr(i) COLLATE ${collate}) AS lower FROM generate_series(1, 131071) AS i
    WHERE i NOT BETWEEN 55296 AND 57343 AND lower(chr(i) COLLATE ${collate}) <> chr(i)`.execute(db)
  return new Map(rows.map(({ upper, lower }) => [upper, lower]))
}
