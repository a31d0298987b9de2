// Names within statements that a refusal tells somebody to run. Whoever names a table or a function must not write the statement.
import { escapeIdentifier } from 'pg'

export const quoted = (name: string): string => escapeIdentifier(name)

/** Quoted where it must be. */
export const sqlName = (...parts: readonly string[]): string =>
  parts.map(part => (/^[a-z_][a-z0-9_]*$/.test(part) ? part : quoted(part))).join('.')
