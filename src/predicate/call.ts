// What a function or operator in the algebra is made of: see calls.ts for which there are.
import type { CallName, Expr, SqlType } from './algebra.ts'

export type Call = Extract<Expr, { kind: 'call' }>

/** Values as Postgres prints them, none NULL. @throws ValueError where Postgres raises */
export type Compute = (...values: string[]) => string | null

/** The same for a call that is not strict: NULL is a value like others. */
export type ComputeWithNulls = (...values: (string | null)[]) => string | null

/** @param types of the arguments, beneath their domains @param type of the result
 *  @returns null for types that it is not exact for */
export type Maker<C> = (types: readonly SqlType[], type: SqlType) => C | null

export type Calls<C> = Readonly<Partial<Record<CallName, Maker<C>>>>

/** Text, varchar and name; what is padded is cast first, as Postgres does. */
export const isText = (type: SqlType | undefined): boolean => type?.family === 'text'

export const isInt = (type: SqlType | undefined): boolean => type?.family === 'int'

/** A boolean as Postgres prints it. */
export const printBool = (value: boolean): 't' | 'f' => (value ? 't' : 'f')
