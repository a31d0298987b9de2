// One algebra, three readers: evaluate it on a row, take index keys from it, render it to SQL.
// Policies (parsed from SQL) and client filters (PostgREST's grammar) both become a Predicate. Three-valued, like SQL:
// true, false, or null for unknown.

/** What Tidegate needs to know of a Postgres type to compare its values as Postgres would. */
export interface SqlType {
  readonly oid: number
  /** As `format_type` prints it under an empty search_path: `integer`, `text`, `public.mood`, `integer[]`. */
  readonly name: string
  readonly family: TypeFamily
  /** Element type, for arrays. */
  readonly element?: SqlType
  /** Of a composite type, whose family is `other`. */
  readonly fields?: readonly { readonly name: string; readonly type: SqlType }[]
  /** Labels in sort order, for enums. */
  readonly labels?: readonly string[]
  /** For domains: `oid` and `name` are the domain's, the rest is the base type's. */
  readonly domain?: boolean
  /** For domains: the type beneath, from which operators and the width of integers and floats follow. */
  readonly base?: SqlType
  /** For text, varchar, bpchar, name: how the *column's* collation compares. Absent for types without one.
   *  `c`: by bytes. `deterministic`: equality by bytes, order only Postgres knows. `nondeterministic`: neither.
   *  Constants and settings leave it out unless they have a COLLATE of their own: theirs yields to the column's. */
  readonly collation?: 'c' | 'deterministic' | 'nondeterministic'
  /** For collations with a known character-by-character lower(): the characters it changes, for ILIKE. Collation `c`
   *  without it folds ASCII only, so a collation that orders by bytes but folds more (C.UTF-8) must have it. */
  readonly lower?: ReadonlyMap<string, string>
}

export type TypeFamily =
  | 'bool'
  | 'int'
  | 'float'
  | 'numeric'
  | 'text'
  | 'bpchar'
  | 'uuid'
  | 'date'
  | 'timestamp'
  | 'timestamptz'
  | 'time'
  | 'bytea'
  | 'enum'
  | 'json'
  | 'jsonb'
  | 'array'
  | 'other'

/** One row version as a predicate reads it: values in Postgres's text form under the pinned session settings
 *  (ISO dates, UTC, `extra_float_digits` 1, hex bytea), by column position. */
export interface Row {
  /** null is SQL NULL; undefined is unknown: an unchanged TOAST value, or a column outside the replica identity. */
  text(column: number): string | null | undefined
}

export interface TableRef {
  readonly oid: number
  readonly schema: string
  readonly name: string
}

/** Where a constant comes from that no literal of a policy is. True: from the claims, so that each reader has another.
 *  `shared`: from what is asked for, such as a channel's topic, so that many have the same. Means nothing else. */
export type OfReader = true | 'shared'

/** A scalar expression. `column` counts from 0 in the table's WAL order. */
export type Expr =
  | { readonly kind: 'column'; readonly column: number; readonly name: string; readonly type: SqlType }
  | { readonly kind: 'const'; readonly value: string | null; readonly type: SqlType; readonly ofReader?: OfReader }
  /** The value of a setting at request time: `current_setting('request.jwt.claims', true)`. Bound to a const by `bind`. */
  | { readonly kind: 'setting'; readonly name: string; readonly missingOk: boolean; readonly type: SqlType }
  | { readonly kind: 'cast'; readonly arg: Expr; readonly type: SqlType }
  | { readonly kind: 'coalesce'; readonly args: readonly Expr[]; readonly type: SqlType }
  | { readonly kind: 'nullif'; readonly left: Expr; readonly right: Expr; readonly type: SqlType }
  /** `->` and `->>` by key or by array index. */
  | {
      readonly kind: 'jsonGet'
      readonly arg: Expr
      readonly key: Expr
      readonly asText: boolean
      readonly type: SqlType
    }
  | { readonly kind: 'array'; readonly items: readonly Expr[]; readonly type: SqlType }
  /** A predicate used as a value of type boolean. */
  | { readonly kind: 'predicate'; readonly predicate: Predicate; readonly type: SqlType }
  /** The first value whose condition is true, else `otherwise`. As many conditions as values; all of them have the type. */
  | {
      readonly kind: 'case'
      readonly whens: readonly Predicate[]
      readonly values: readonly Expr[]
      readonly otherwise: Expr
      readonly type: SqlType
    }
  /** A function or operator of Postgres that is computed here exactly: see calls.ts. */
  | { readonly kind: 'call'; readonly name: CallName; readonly args: readonly Expr[]; readonly type: SqlType }
  /** `now()` and a constant interval: the time of the position at which a row is judged, never a clock's. */
  | { readonly kind: 'now'; readonly shift: Shift; readonly type: SqlType }

/** Functions and operators by their names in SQL, told apart by the types of their arguments; the last line by what they are. */
export type CallName =
  | '||'
  | 'lower'
  | 'upper'
  | 'length'
  | 'octet_length'
  | 'split_part'
  | 'substr'
  | 'left'
  | 'right'
  | 'strpos'
  | 'starts_with'
  /** With a constant pattern that `regexMatcher` knows. */
  | '~'
  /** The same without regard to case. */
  | '~*'
  | 'replace'
  | 'btrim'
  | 'ltrim'
  | 'rtrim'
  | 'concat'
  | 'concat_ws'
  | 'string_to_array'
  | 'array_to_string'
  | 'array_length'
  | 'cardinality'
  | '@>'
  | '&&'
  | '?'
  | '?|'
  | '?&'
  | '#>'
  | '#>>'
  | 'jsonb_array_length'
  | 'jsonb_typeof'
  | 'to_jsonb'
  | '+'
  | '-'
  | '*'
  | '/'
  | '%'
  | 'abs'
  | 'greatest'
  | 'least'
  /** `a[i]`, `a[from:to]`, `a[from:]`, `a[:to]`; a cast to `numeric(p, s)`; a date
   *  or timestamp plus a constant interval (months, days, microseconds); `ARRAY(SELECT ..._array_elements(x))`, of
   *  which `jsonTexts` is that of text, and `ARRAY(SELECT jsonb_object_keys(x))`. */
  | 'subscript'
  | 'slice'
  | 'sliceFrom'
  | 'sliceTo'
  | 'numericScale'
  | 'shifted'
  | 'jsonElements'
  | 'jsonTexts'
  | 'jsonKeys'

/** An interval's parts, as Postgres keeps them. */
export interface Shift {
  readonly months: number
  readonly days: number
  readonly micros: number
}

export type CompareOp = '=' | '<>' | '<' | '<=' | '>' | '>='

export type Predicate =
  | { readonly kind: 'true' }
  | { readonly kind: 'false' }
  | { readonly kind: 'unknown' }
  | { readonly kind: 'and'; readonly args: readonly Predicate[] }
  | { readonly kind: 'or'; readonly args: readonly Predicate[] }
  | { readonly kind: 'not'; readonly arg: Predicate }
  | { readonly kind: 'compare'; readonly op: CompareOp; readonly left: Expr; readonly right: Expr }
  /** `left = item` of any item, and `left = ANY(array)` once the array is constant. Items are of one type: SQL's own IN
   *  first casts unlike ones, and `left`, to a common type; whoever parses SQL makes those casts explicit. */
  | { readonly kind: 'in'; readonly left: Expr; readonly items: readonly Expr[] }
  /** `left = ANY(array)` where the array is a column or not yet bound. */
  | { readonly kind: 'any'; readonly left: Expr; readonly array: Expr }
  | { readonly kind: 'like'; readonly arg: Expr; readonly pattern: Expr; readonly insensitive: boolean }
  | { readonly kind: 'isNull'; readonly arg: Expr }
  | { readonly kind: 'isDistinct'; readonly left: Expr; readonly right: Expr }
  /** A boolean expression used as a predicate: a boolean column, a cast to boolean. */
  | { readonly kind: 'boolean'; readonly arg: Expr }
  | SemiJoin

/** `EXISTS (SELECT ... FROM inner WHERE inner.k = <outer> AND <where>)`, or `<outer> IN (SELECT inner.k FROM inner
 *  WHERE <where>)`. `where` reads only inner columns, constants, the time and claims (until bound, settings), and may hold
 *  semi-joins of its own, whose outer row is the inner row of this one: a chain `row -> project -> team -> user`. One whose
 *  `where` does, or reads the time, is a hop: see hops.ts. */
export interface SemiJoin {
  readonly kind: 'semiJoin'
  readonly table: TableRef
  /** Pairs joined by equality; empty when the subquery does not mention the outer row. */
  readonly keys: readonly { readonly inner: Extract<Expr, { kind: 'column' }>; readonly outer: Expr }[]
  /** The condition on the inner row alone, including what the reader's own policies on `table` add. */
  readonly where: Predicate
  /** True for IN: a NULL on either side makes "not found" unknown instead of false. */
  readonly nullAware: boolean
}

/** How a semi-join is answered while evaluating: from the membership index. */
export interface Memberships {
  /** Inner rows of the bound semi-join under this key (`semiJoinKey`), 0 when none. Not asked of hops. */
  count(join: SemiJoin, key: string): number
  /** All inner rows that satisfy `where`. Only asked when `nullAware`. Not asked of hops. */
  total(join: SemiJoin): number
  /** Inner rows with a NULL in the key. Only asked when `nullAware`. Not asked of hops. */
  nulls(join: SemiJoin): number
  /** Inner rows of a hop that satisfy the local part of its `where` (`splitWhere`); the rest is judged on each of them.
   *  @param key null for those with a NULL in the key; undefined for all, which is only asked when `nullAware` */
  rows(join: SemiJoin, key: string | null | undefined): Iterable<Row>
  /** `now()`, in microseconds since 1970: the greatest commit timestamp up to the position judged at. */
  readonly nowMicros: bigint
}

export type Truth = true | false | null

/** A place to look a row up: rows that satisfy the predicate have one of `keys` in `column`, or a key of the semi-join. */
export type Anchor =
  | {
      readonly kind: 'const'
      readonly column: number
      readonly keys: readonly string[]
      /** Some of the keys come from the claims, or from what is asked for. */
      readonly ofReader: OfReader | false
    }
  /** `columns` are those that the semi-join compares, in the order of its keys. */
  | { readonly kind: 'semiJoin'; readonly join: SemiJoin; readonly columns: readonly number[] }

export const alwaysTrue: Predicate = { kind: 'true' }
export const alwaysFalse: Predicate = { kind: 'false' }

// The functions over this algebra, one file each:
//   build.ts      and(...), or(...), not(...): simplifying constructors
//   bind.ts       bind(predicate, settings): replaces settings by constants and folds what is constant
//   evaluate.ts   evaluate(predicate, row, memberships): Truth
//   compare.ts    compareText(type, a, b), keyOf(type, text): the canonical text under which SQL-equal values are equal
//   keys.ts       cover(predicate): Anchor[] | null (null: no anchors, every row must be looked at)
//   columns.ts    columnsOf(predicate), semiJoinsOf(predicate)
//   calls.ts      callFunction(expr): the functions and operators of Postgres that are computed here
//   time.ts       timeBoundsOf(predicate): where answers change by time alone
//   hops.ts       splitWhere(semiJoin): the local part of its condition, and the rest
//   fingerprint.ts  fingerprint(predicate): stable canonical text, equal for equal predicates
//   render.ts     renderPredicate(predicate): Kysely expression
//   postgrest.ts  parseFilter(...)
