// Whose row-level security applies, and what a role may SELECT or INSERT.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { PrivilegeFacts, RelationFacts, RoleFacts } from '../catalog/facts.ts'
import type { Command } from '../catalog/table.ts'
import { quoted, sqlName } from './sql-name.ts'

/** Whether a role reads this relation's rows without its policies, as check_enable_rls in rls.c decides. */
export function seesAllRows({ table, owner }: RelationFacts, role: RoleFacts): boolean {
  if (!table.rowSecurity || role.superuser || role.bypassRowSecurity) return true
  return role.privilegesOf.has(owner) && !table.forceRowSecurity
}

/** @throws TABLE_REFUSED with the statement to run, when a SELECT, or an INSERT, would raise for every column */
export function assertPrivileged(
  { table }: RelationFacts,
  role: RoleFacts,
  privileges: PrivilegeFacts,
  command: Command,
): void {
  const name = `${table.schema}.${table.name}`
  if (!privileges.schemaUsage)
    throw new TidegateError(
      'TABLE_REFUSED',
      `role ${role.name} may not use schema ${table.schema} of ${name}: GRANT USAGE ON SCHEMA ${sqlName(table.schema)} TO ${quoted(role.name)}`,
    )
  if (!privileges.anyColumn)
    throw new TidegateError(
      'TABLE_REFUSED',
      `role ${role.name} may not ${command} ${command === 'SELECT' ? '' : 'into '}${name}: GRANT ${command} ON ${sqlName(table.schema, table.name)} TO ${quoted(role.name)}`,
    )
}
