// What the catalog knows of roles, relations, functions and types, as compiling a policy asks for it. Types only, but for
// the one way to say that something has not been read yet.
import type { Expr, SqlType } from '../../predicate/algebra.ts'
import type { ColumnExpr } from '../../predicate/map-columns.ts'
import type { Command, Table, TableAccess } from './table.ts'

export interface RoleFacts {
  readonly oid: number
  readonly name: string
  readonly superuser: boolean
  readonly bypassRowSecurity: boolean
  /** OIDs of the roles whose privileges it has by inheritance, its own included. */
  readonly privilegesOf: ReadonlySet<number>
}

export interface CollationFacts {
  readonly oid: number
  readonly behaviour: NonNullable<SqlType['collation']>
  readonly lower?: ReadonlyMap<string, string>
}

export interface PolicyFacts {
  readonly name: string
  readonly permissive: boolean
  /** Of roles; 0 is PUBLIC. */
  readonly roles: readonly number[]
  readonly command: Command | 'ALL'
  /** As pg_get_expr prints it under an empty search_path; null when the policy has a WITH CHECK only. */
  readonly using: string | null
  /** Its WITH CHECK, printed alike; null when it has none: then rows that are written are judged by USING. */
  readonly check: string | null
}

export interface RelationFacts {
  readonly table: Table
  readonly owner: number
  /** Why it cannot be followed ("a view", "unlogged"), or null for a table that can. */
  readonly unsupported: string | null
  /** By position; null for types without a collation. */
  readonly collations: readonly (CollationFacts | null)[]
  /** Columns that exist but that the publication leaves out. */
  readonly unpublishedColumns: readonly string[]
  /** Positions that no two rows share: the columns of valid, immediate, whole unique indexes. */
  readonly uniqueKeys: readonly (readonly number[])[]
  /** Those FOR ALL, FOR SELECT and FOR INSERT, by name. */
  readonly policies: readonly PolicyFacts[]
}

/** What one role may SELECT or INSERT of one relation, as has_column_privilege answers. */
export interface PrivilegeFacts {
  readonly schemaUsage: boolean
  readonly anyColumn: boolean
  /** Names, those that the publication leaves out too. */
  readonly columns: ReadonlySet<string>
}

export interface FunctionFacts {
  readonly oid: number
  readonly schema: string
  readonly name: string
  /** As format_type prints them; what overloads are told apart by. */
  readonly argumentTypes: readonly SqlType[]
  readonly argumentNames: readonly string[]
  readonly defaults: number
  readonly variadic: boolean
  readonly language: string
  /** False for aggregates, window functions and procedures. */
  readonly plain: boolean
  readonly returnsSet: boolean
  readonly returnType: SqlType
  /** Of RETURNS TABLE and OUT parameters; null without. */
  readonly columns: readonly { readonly name: string; readonly type: SqlType }[] | null
  readonly strict: boolean
  readonly securityDefiner: boolean
  readonly owner: number
  /** Its SET clauses: name and value. */
  readonly settings: readonly (readonly [name: string, value: string])[]
  /** Schemas of its SET search_path, in order; null without one. */
  readonly searchPath: readonly string[] | null
  /** `source`: the text between the quotes. `standard`: RETURN ... or BEGIN ATOMIC ... END, printed by Postgres. */
  readonly body: { readonly kind: 'source' | 'standard'; readonly text: string }
}

export interface ExecutionFacts {
  readonly execute: boolean
  /** Whether the role may name things in the function's schema. */
  readonly schemaUsage: boolean
}

/** One thing to read from the catalog. */
export type Need =
  | { readonly kind: 'role'; readonly oid: number }
  | { readonly kind: 'relation'; readonly schema: string; readonly name: string }
  | { readonly kind: 'privileges'; readonly relation: number; readonly role: number; readonly command: Command }
  | { readonly kind: 'functions'; readonly schema: string; readonly name: string }
  | { readonly kind: 'execute'; readonly function: number; readonly role: number }
  | { readonly kind: 'type'; readonly schema: string; readonly name: string; readonly array: boolean }
  | { readonly kind: 'collation'; readonly schema: string; readonly name: string }
  | { readonly kind: 'operators'; readonly schema: string }
  | { readonly kind: 'setting'; readonly name: string }

/** Reads of the catalog that are already in memory. Each throws FactNeeded for what has not been read. */
export interface Facts {
  role(oid: number): RoleFacts
  relation(schema: string, name: string): RelationFacts | null
  /** @param command SELECT if left out */
  privileges(relation: number, role: number, command?: Command): PrivilegeFacts
  functions(schema: string, name: string): readonly FunctionFacts[]
  execution(functionOid: number, role: number): ExecutionFacts
  type(schema: string, name: string, array: boolean): SqlType | null
  collation(schema: string, name: string): CollationFacts | null
  /** Names of operators in this schema that take built-in types: they could hide the built-in ones. */
  operators(schema: string): ReadonlySet<string>
  /** What a setting is where no claim sets it: by ALTER DATABASE, ALTER ROLE or the configuration; null when it is not. */
  setting(name: string): string | null
}

/** Compiles what one role may read of a table, or INSERT into it. Pure.
 *  @throws FactNeeded for what is to be read first; TABLE_REFUSED, POLICY_UNSUPPORTED */
export type CompileAccess = (input: AccessInput) => TableAccess

export interface AccessInput {
  readonly facts: Facts
  readonly relation: RelationFacts
  readonly role: RoleFacts
  /** What the rows are judged for; SELECT if left out. */
  readonly command?: Command
  /** What stands for columns of the row that is judged, where that is known. */
  readonly row?: JudgedRow
}

/** A constant or a setting; null for a column that stays one. */
export type JudgedRow = (column: ColumnExpr) => Expr | null

/** Compiling is pure, yet which functions and tables a policy reads is known only while compiling: so it stops with what
 *  it needs, the catalog reads that, and compiling starts again. Policies are short; a restart costs microseconds. */
export class FactNeeded extends Error {
  readonly need: Need

  constructor(need: Need) {
    super(`not read yet: ${JSON.stringify(need)}`)
    this.name = 'FactNeeded'
    this.need = need
  }
}
