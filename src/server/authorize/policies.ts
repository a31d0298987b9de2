// What one role may read of a table: privileges and row-level security, compiled from the catalog into the algebra.
import { alwaysFalse, alwaysTrue, type Predicate } from '../../predicate/algebra.ts'
import { assertCompilable } from '../../predicate/bind.ts'
import { and, or } from '../../predicate/build.ts'
import { semiJoinsOf } from '../../predicate/columns.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { AccessInput, PolicyFacts, RelationFacts, RoleFacts } from '../catalog/facts.ts'
import type { Table, TableAccess } from '../catalog/table.ts'
import { parseExpression } from './parse-sql.ts'
import { compileCondition } from './policy-condition.ts'
import { type Compiler, type Context, nameOf, type Scope, type Source, unsupported } from './policy-scope.ts'
import { compileValue } from './policy-value.ts'
import { assertReadable, seesAllRows } from './privileges.ts'

/** Pure; `loadGrammar` must have resolved.
 *  @throws TABLE_REFUSED when a SELECT by this role would raise, on this table or on one that its policies read;
 *    POLICY_UNSUPPORTED naming table, policy and construct; FactNeeded for what is to be read from the catalog first */
export function compileAccess({ facts, relation, role }: AccessInput): TableAccess {
  const { table } = relation
  const privileges = facts.privileges(table.oid, role.oid)
  assertReadable(relation, role, privileges)
  const memberships = new Map<number, Table>()
  const context: Context = { facts, label: nameOf(relation), role, memberships, depth: 0, innerTable: null, compiler }
  return {
    table,
    role: role.name,
    readable: new Set(table.columns.flatMap(({ name }, column) => (privileges.columns.has(name) ? [column] : []))),
    policy: rowsOf(relation, role, context),
    memberships: [...memberships.values()],
    warnings: warningsOf(relation, role),
  }
}

const compiler: Compiler = { value: compileValue, condition: compileCondition, visibleRows }

/** What a subquery's table shows to the one who reads it there. */
function visibleRows(relation: RelationFacts, viewer: RoleFacts, context: Context): Predicate {
  const predicate = rowsOf(relation, viewer, { ...context, innerTable: relation })
  if (semiJoinsOf(predicate).length > 0)
    return unsupported(context, `${nameOf(relation)}, whose own policies read another table`)
  return predicate
}

/** Permissive policies are OR-ed, restrictive ones AND-ed to that; without a permissive one nothing is visible. */
function rowsOf(relation: RelationFacts, role: RoleFacts, context: Context): Predicate {
  if (seesAllRows(relation, role)) return alwaysTrue
  const policies = policiesFor(relation, role)
  const permissive = policies.filter(policy => policy.permissive)
  if (permissive.length === 0) return alwaysFalse
  const conditions = policies.map(policy => ({
    permissive: policy.permissive,
    predicate: rowsOfPolicy(policy, relation, role, context),
  }))
  return and(
    ...conditions.filter(condition => !condition.permissive).map(condition => condition.predicate),
    or(...conditions.filter(condition => condition.permissive).map(condition => condition.predicate)),
  )
}

/** A policy without USING (WITH CHECK only) says nothing about SELECT. */
const policiesFor = (relation: RelationFacts, role: RoleFacts): PolicyFacts[] =>
  relation.policies.filter(
    ({ using, roles }) => using !== null && roles.some(oid => oid === 0 || role.privilegesOf.has(oid)),
  )

function rowsOfPolicy(policy: PolicyFacts, relation: RelationFacts, role: RoleFacts, context: Context): Predicate {
  const label = `policy "${policy.name}" on ${nameOf(relation)}`
  const labelled: Context = {
    ...context,
    label: context.innerTable === null ? label : `${context.label} (by ${label})`,
  }
  const source: Source = { alias: relation.table.name, relation, privileges: null }
  const scope: Scope = {
    context: labelled,
    sources: [source],
    outer: null,
    parameters: null,
    // Policy text is printed with every name qualified that is not in pg_catalog.
    searchPath: [],
    viewer: role,
    lateParsed: false,
  }
  try {
    const { predicate } = compileCondition(parseExpression(policy.using ?? 'false'), scope, true)
    assertCompilable(predicate)
    return predicate
  } catch (error) {
    // The algebra's own refusals do not know which policy they are about.
    const isOurs = error instanceof TidegateError && !error.message.startsWith(labelled.label)
    if (isOurs) return unsupported(labelled, `an expression that only Postgres can judge (${error.message})`, error)
    throw error
  }
}

function warningsOf(relation: RelationFacts, role: RoleFacts): TableAccess['warnings'] {
  const name = nameOf(relation)
  if (!relation.table.rowSecurity) {
    const message = `row-level security is off on ${name}: every row goes to whoever may SELECT it`
    return [{ code: 'NO_ROW_SECURITY', message }]
  }
  if (seesAllRows(relation, role) || policiesFor(relation, role).some(policy => policy.permissive)) return []
  const message = `row-level security is on for ${name} and no policy lets role ${role.name} SELECT: the query is empty`
  return [{ code: 'NO_POLICY', message }]
}
