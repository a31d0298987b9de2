// The types of rows, from the same interface that Kysely takes: a column's type, or its `ColumnType` or `Generated`.
import type { Operator } from './filter.ts'

/** A table's row as it comes over the wire, which is JSON: a `Date` is text (`2026-01-02T03:04:05+00:00`), and so are bytes; a `bigint`, or
 *  a `string` that Kysely also writes as a number (int8, numeric), is a number where a double holds it exactly, else text. */
export type RowOf<Table> = { [Column in keyof Table]: Wire<Selected<Table[Column]>, Inserted<Table[Column]>> }

/** What a column is compared with: its own type, and what comes over the wire for it. */
export type Operand<Column> = Compared<Selected<Column>, Inserted<Column>>

/** What an operator takes beside a column. */
export type ValueFor<Column, Op extends Operator> = Op extends 'in' | 'not in'
  ? readonly Operand<Column>[]
  : Op extends 'is' | 'is not'
    ? null | 'not null' | (true extends Selected<Column> ? boolean | 'unknown' : never)
    : Op extends 'like' | 'ilike' | 'not like' | 'not ilike'
      ? string
      : Operand<Column>

export type Selected<Column> = Column extends { readonly __select__: infer Value } ? Value : Column
type Inserted<Column> = Column extends { readonly __insert__: infer Value } ? Value : never

type Wire<Value, Insert> = Value extends readonly (infer Item)[] ? WireOne<Item, Insert>[] : WireOne<Value, Insert>

type WireOne<Value, Insert> = Value extends Date | Uint8Array
  ? string
  : Value extends bigint
    ? number | string
    : Value extends string
      ? Value | NumberLike<Value, Insert, number>
      : Value

/** Kysely's generators write int8 and numeric as `ColumnType<string, bigint | number | string>`. */
type NumberLike<Value, Insert, As> = string extends Value
  ? [Extract<Insert, number | bigint>] extends [never]
    ? never
    : As
  : never

type Compared<Value, Insert> = Value extends null | undefined
  ? never
  : Value extends readonly (infer Item)[]
    ? readonly (ComparedOne<Item, Insert> | null)[]
    : ComparedOne<Value, Insert>

type ComparedOne<Value, Insert> = Value extends Date
  ? Date | string
  : Value extends Uint8Array
    ? Uint8Array | string
    : Value extends bigint
      ? bigint | number | string
      : Value extends string
        ? Value | NumberLike<Value, Insert, bigint | number>
        : Value extends number | boolean
          ? Value
          : unknown extends Value
            ? string | number | boolean | bigint | Date
            : Value extends object
              ? never
              : Value
