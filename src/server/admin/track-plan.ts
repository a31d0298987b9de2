// Decides what must be done so that a table's changes can be followed and judged, and says it as SQL. Pure.
//
// The application's own UPDATE and DELETE must go on, whatever its later migrations do. Postgres refuses both on a
// published table that has no usable replica identity, so the identity is there before the publication, in one
// transaction. FULL needs no index: dropping an index or the primary key takes nothing from it.
import { createHash } from 'node:crypto'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { readFunctionName } from '../catalog/read-function.ts'
import { readFunctionArguments, readFunctionSql } from './read-function-sql.ts'
import { block, identifier, literal, qualified, type Script } from './script.ts'
import { printName, quoteName, type Relation, regclass, type TableState } from './tracked-table.ts'

export interface TrackWish {
  readonly publication: string
  /** The login that calls the read function. */
  readonly login: string
  /** Columns that policies read of this table. */
  readonly policyColumns: readonly string[]
  /** `full`, or an index over the primary key and these columns; null: those of policyColumns. */
  readonly identity: 'full' | { readonly indexOver: readonly string[] | null }
}

export interface TrackPlan {
  readonly script: Script
  /** One line each, in the past tense once the script has run. */
  readonly changes: readonly string[]
  readonly warnings: readonly string[]
}

const indexPrefix = 'tidegate_identity_'

/** @throws COLUMN_UNKNOWN, IDENTITY_INSUFFICIENT (a nullable or virtual column), TABLE_UNSUPPORTED (an index on partitions) */
export function planTrack(table: TableState, wish: TrackWish): TrackPlan {
  const before: string[] = []
  const statements: string[] = []
  const changes: string[] = []
  const index = wish.identity === 'full' ? null : identityIndex(table, wish.identity.indexOver ?? wish.policyColumns)
  if (index === null) refuseVirtualColumns(table)
  const needed = [...table.primaryKey, ...(index?.columns ?? wish.policyColumns)]

  // A transaction that is writing at the moment of ADD TABLE may be decoded by the publication as it was before (Postgres
  // before 14.19, 15.14, 16.10, 17.6): this lock waits until no writer is under way, and holds the next ones.
  if (!table.isPublished) statements.push(`LOCK TABLE ${quoteName(table)} IN ACCESS EXCLUSIVE MODE`)
  for (const relation of table.relations) {
    if (isIdentityEnough(relation, needed, index)) continue
    statements.push(rememberIdentity(table, relation))
    if (index === null) {
      statements.push(`ALTER TABLE ${quoteName(relation)} REPLICA IDENTITY FULL`)
      if (isOurIndex(relation)) statements.push(`DROP INDEX ${relation.identityIndex}`)
      changes.push(`replica identity FULL${of(relation, table)} (was ${describe(relation)})`)
    } else {
      before.push(...buildIndex(table, index))
      statements.push(`ALTER TABLE ${quoteName(table)} REPLICA IDENTITY USING INDEX ${identifier(index.name)}`)
      if (isOurIndex(relation)) statements.push(`DROP INDEX ${relation.identityIndex}`)
      changes.push(
        `replica identity by the index ${index.name} over (${index.columns.join(', ')}) (was ${describe(relation)})`,
      )
    }
  }
  if (!table.isPublished) {
    statements.push(`ALTER PUBLICATION ${identifier(wish.publication)} ADD TABLE ${quoteName(table)}`)
    changes.push(`in the publication "${wish.publication}"`)
  }
  if (!table.hasReadFunction) {
    statements.push(...installReadFunction(table, wish.login))
    changes.push(`read function of its owner ${table.owner}, for ${wish.login}`)
  }
  if (before.length + statements.length > 0) statements.push(...rememberTable(table, wish.publication))
  return {
    script: { title: `Track ${printName(table)}`, before, statements, after: [] },
    changes,
    warnings: warningsOf(table, index, wish.policyColumns),
  }
}

function refuseVirtualColumns(table: TableState): void {
  const column = table.columns.find(({ isVirtual }) => isVirtual)
  if (column === undefined) return
  const name = printName(table)
  throw new TidegateError(
    'IDENTITY_INSUFFICIENT',
    `${name}.${column.name} is a virtual generated column: under REPLICA IDENTITY FULL Postgres would refuse the application's own UPDATE and DELETE on ${name}; make it STORED, or: tidegate track ${name} --index`,
  )
}

interface IdentityIndex {
  readonly name: string
  readonly columns: readonly string[]
}

function identityIndex(table: TableState, wanted: readonly string[]): IdentityIndex {
  if (table.partitioned)
    throw new TidegateError(
      'TABLE_UNSUPPORTED',
      `${printName(table)} is partitioned, and Postgres builds no index concurrently over partitions; track it without --index`,
    )
  const columns = [...new Set([...table.primaryKey, ...wanted])]
  for (const name of columns) {
    const column = table.columns.find(each => each.name === name)
    if (column === undefined)
      throw new TidegateError('COLUMN_UNKNOWN', `${printName(table)} has no column "${name}", which --columns names`)
    if (column.isVirtual)
      throw new TidegateError(
        'IDENTITY_INSUFFICIENT',
        `${printName(table)}.${name} is a virtual generated column, which no index holds and the log does not carry`,
      )
    if (!column.notNull)
      throw new TidegateError(
        'IDENTITY_INSUFFICIENT',
        `${printName(table)}.${name} may be null, and a replica identity index may not hold such a column; track without --index, or: ALTER TABLE ${quoteName(table)} ALTER COLUMN ${identifier(name)} SET NOT NULL`,
      )
  }
  const hash = createHash('sha256').update(JSON.stringify(columns)).digest('hex').slice(0, 8)
  return { name: `${indexPrefix}${table.oid}_${hash}`, columns }
}

/** Under a wish for FULL an index of ours that still suffices is kept: `track` again repairs, it does not choose anew. */
function isIdentityEnough(relation: Relation, needed: readonly string[], index: IdentityIndex | null): boolean {
  if (index === null && relation.identity === 'full') return true
  return (
    relation.identityIndex !== null &&
    (index !== null || isOurIndex(relation)) &&
    needed.every(name => relation.identityColumns.includes(name))
  )
}

const isOurIndex = (relation: Relation): boolean => relation.identityIndex?.includes(`.${indexPrefix}`) === true

// lock_timeout is lifted: building concurrently waits for other transactions, and nobody waits for it meanwhile. The
// index of an earlier attempt that was interrupted is invalid and stays in the way.
const buildIndex = (table: TableState, { name, columns }: IdentityIndex): string[] => [
  'SET lock_timeout = 0',
  `DROP INDEX CONCURRENTLY IF EXISTS ${qualified(table.schema, name)}`,
  `CREATE UNIQUE INDEX CONCURRENTLY ${identifier(name)} ON ${quoteName(table)} (${columns.map(identifier).join(', ')})`,
  'RESET lock_timeout',
]

// What it was the first time counts: what `track` finds when it runs again is its own.
const rememberIdentity = (table: TableState, relation: Relation): string =>
  `INSERT INTO tidegate.identity_before (relation, root, identity, identity_index)
  SELECT c.oid, ${regclass(table)}, c.relreplident,
    (SELECT indexrelid FROM pg_index WHERE indrelid = c.oid AND indisreplident AND c.relreplident = 'i')
  FROM pg_class c WHERE c.oid = ${regclass(relation)} ON CONFLICT (relation) DO NOTHING`

function installReadFunction(table: TableState, login: string): string[] {
  const signature = `${qualified('tidegate', readFunctionName(table.schema, table.name))}(${readFunctionArguments})`
  const owner = identifier(table.owner)
  const giveAway = `ALTER FUNCTION ${signature} OWNER TO ${owner};`
  return [
    readFunctionSql(table.schema, table.name),
    `REVOKE ALL ON FUNCTION ${signature} FROM PUBLIC`,
    `GRANT EXECUTE ON FUNCTION ${signature} TO ${identifier(login)}`,
    // Postgres gives a function only to who may create one there; the owner may for this moment.
    block(`  IF has_schema_privilege(${literal(table.owner)}, 'tidegate', 'CREATE') THEN
    ${giveAway}
  ELSE
    GRANT CREATE ON SCHEMA tidegate TO ${owner};
    ${giveAway}
    REVOKE CREATE ON SCHEMA tidegate FROM ${owner};
  END IF;`),
  ]
}

/** Also forgets what is void: tables that were dropped, and the function under the name this table had before. The index is the
 *  table's: every deployment that tracks it knows it, and the last to go drops it. */
function rememberTable(table: TableState, publication: string): string[] {
  const relation = regclass(table)
  const name = literal(printName(table))
  const readFunction = literal(readFunctionName(table.schema, table.name))
  return [
    block(
      `  FOR stale IN DELETE FROM tidegate.tracked t WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = t.relation)
    OR (t.publication = ${literal(publication)} AND t.relation = ${relation} AND t.read_function <> ${readFunction})
    RETURNING t.read_function
  LOOP
    IF stale <> ${readFunction} AND NOT EXISTS (SELECT FROM tidegate.tracked WHERE read_function = stale) THEN
      EXECUTE format('DROP FUNCTION IF EXISTS tidegate.%I(${readFunctionArguments})', stale);
    END IF;
  END LOOP;
  DELETE FROM tidegate.identity_before b WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = b.relation);`,
      '  stale text;',
    ),
    `INSERT INTO tidegate.tracked (publication, relation, name, read_function, identity_index)
  SELECT ${literal(publication)}, ${relation}, ${name}, ${readFunction}, (SELECT x.indexrelid FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
    WHERE x.indrelid = ${relation} AND x.indisreplident AND i.relname LIKE ${literal(`${indexPrefix.replaceAll('_', '\\_')}%`)})
  ON CONFLICT (publication, relation) DO UPDATE
  SET name = excluded.name, read_function = excluded.read_function, identity_index = excluded.identity_index`,
    `UPDATE tidegate.tracked t SET identity_index = o.identity_index FROM tidegate.tracked o
  WHERE o.publication = ${literal(publication)} AND o.relation = ${relation} AND t.relation = o.relation
    AND t.identity_index IS DISTINCT FROM o.identity_index`,
  ]
}

function warningsOf(table: TableState, index: IdentityIndex | null, policyColumns: readonly string[]): string[] {
  const name = printName(table)
  const warnings: string[] = []
  if (!table.rowSecurity)
    warnings.push(
      `NO_ROW_SECURITY: row-level security is off on ${name}: every row goes to whoever may SELECT it. To guard it: ALTER TABLE ${quoteName(table)} ENABLE ROW LEVEL SECURITY`,
    )
  if (table.hidesFromOwner)
    warnings.push(
      `INDEX_NOT_READABLE: ${name} has FORCE ROW LEVEL SECURITY, so not even its owner's function reads it whole. Either: ALTER TABLE ${quoteName(table)} NO FORCE ROW LEVEL SECURITY; or: ALTER ROLE ${identifier(table.owner)} BYPASSRLS`,
    )
  const unread = index === null ? [] : policyColumns.filter(column => !index.columns.includes(column))
  if (unread.length > 0)
    warnings.push(
      `IDENTITY_INSUFFICIENT: policies also read ${unread.join(', ')}, which --columns leaves out: subscriptions that need them will be refused`,
    )
  const ours = index?.name ?? table.relations.find(isOurIndex)?.identityIndex
  if (ours !== undefined && ours !== null)
    warnings.push(
      `when the index ${ours} is dropped, Postgres refuses the application's own UPDATE and DELETE on ${name}; before that: tidegate track ${name}`,
    )
  return warnings
}

const of = (relation: Relation, table: TableState): string =>
  relation.oid === table.oid ? '' : ` of its partition ${printName(relation)}`

const describe = ({ identity, identityIndex: index }: Relation): string =>
  identity !== 'index' ? identity.toUpperCase() : index === null ? 'a dropped index' : `the index ${index}`
