// What one role may read of a table, or INSERT into it: privileges and row-level security, compiled from the catalog into the algebra.
import type { Node } from 'libpg-query'
import { alwaysFalse, alwaysTrue, type Predicate } from '../../predicate/algebra.ts'
import { assertCompilable } from '../../predicate/bind.ts'
import { and, asCondition, or } from '../../predicate/build.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { AccessInput, JudgedRow, PolicyFacts, PrivilegeFacts, RelationFacts, RoleFacts } from '../catalog/facts.ts'
import type { Command, Table, TableAccess } from '../catalog/table.ts'
import { parseExpression } from './parse-sql.ts'
import { compileCondition } from './policy-condition.ts'
import { compileScalar } from './policy-scalar.ts'
import { type Compiler, type Context, nameOf, refused, type Scope, type Source, unsupported } from './policy-scope.ts'
import { compileValue } from './policy-value.ts'
import { assertPrivileged, seesAllRows } from './privileges.ts'

/** Pure; `loadGrammar` must have resolved.
 *  @throws TABLE_REFUSED when a SELECT, or an INSERT, by this role would raise, on this table or on one that its policies read;
 *    POLICY_UNSUPPORTED naming table, policy and construct; FactNeeded for what is to be read from the catalog first */
export function compileAccess({ facts, relation, role, command = 'SELECT', row }: AccessInput): TableAccess {
  const { table } = relation
  const privileges = facts.privileges(table.oid, role.oid, command)
  assertPrivileged(relation, role, privileges, command)
  const context = contextOf({ facts, relation, role })
  return {
    table,
    role: role.name,
    readable: new Set(table.columns.flatMap(({ name }, column) => (privileges.columns.has(name) ? [column] : []))),
    policy: rowsOf(relation, role, context, { command, row }),
    memberships: [...context.memberships.values()],
    // That nothing may be written is no surprise to who only reads.
    warnings: command === 'SELECT' ? warningsOf(relation, role) : [],
  }
}

/** One policy as it is judged for a role. */
export interface PolicyAlone {
  readonly policy: PolicyFacts
  /** False when it is for other roles, or row-level security does not bind this one: then it is not compiled. */
  readonly applies: boolean
  /** Settings not bound; null when it does not compile or does not apply. */
  readonly predicate: Predicate | null
  /** Why it does not compile: POLICY_UNSUPPORTED, TABLE_REFUSED. */
  readonly refusal: TidegateError | null
  /** Tables that its semi-joins read. */
  readonly memberships: readonly Table[]
}

export interface AccessExplained {
  readonly relation: RelationFacts
  readonly role: RoleFacts
  readonly privileges: PrivilegeFacts
  /** Row-level security is off, or does not bind this role. */
  readonly seesAllRows: boolean
  readonly policies: readonly PolicyAlone[]
  readonly warnings: TableAccess['warnings']
  /** Names of the roles that policies name, by OID. */
  readonly roleNames: ReadonlyMap<number, string>
}

/** As `compileAccess`, but each policy on its own, so that one which does not compile says nothing about the others.
 *  @throws FactNeeded */
export function explainAccess({ facts, relation, role }: AccessInput): AccessExplained {
  const applying = seesAllRows(relation, role) ? [] : policiesFor(relation, role, 'SELECT')
  const named = relation.policies.flatMap(({ roles }) => roles).filter(oid => oid !== 0)
  return {
    relation,
    role,
    privileges: facts.privileges(relation.table.oid, role.oid),
    seesAllRows: seesAllRows(relation, role),
    policies: relation.policies
      .filter(({ using }) => using !== null)
      .map(policy =>
        applying.includes(policy)
          ? compileAlone(policy, { facts, relation, role })
          : { policy, applies: false, predicate: null, refusal: null, memberships: [] },
      ),
    warnings: warningsOf(relation, role),
    roleNames: new Map(named.map(oid => [oid, facts.role(oid).name])),
  }
}

function compileAlone(policy: PolicyFacts, { facts, relation, role }: AccessInput): PolicyAlone {
  const context = contextOf({ facts, relation, role })
  const memberships = (): Table[] => [...context.memberships.values()]
  try {
    const text = expressionOf(policy, 'SELECT')!
    const predicate = rowsOfPolicy({ policy, text }, relation, role, guardedBy(relation, [text], context))
    return { policy, applies: true, predicate, refusal: null, memberships: memberships() }
  } catch (refusal) {
    if (!(refusal instanceof TidegateError)) throw refusal
    return { policy, applies: true, predicate: null, refusal, memberships: memberships() }
  }
}

const contextOf = ({ facts, relation, role }: AccessInput): Context => ({
  facts,
  label: nameOf(relation),
  role,
  memberships: new Map(),
  depth: 0,
  guarded: [],
  guardedByAll: [],
  bases: { last: 0 },
  scalars: null,
  compiler,
})

const compiler: Compiler = {
  value: compileValue,
  condition: compileCondition,
  visibleRows: (relation, viewer, context) => rowsOf(relation, viewer, context, { command: 'SELECT' }),
  scalar: compileScalar,
}

/** Permissive policies are OR-ed, restrictive ones AND-ed to that; without a permissive one nothing is visible. */
function rowsOf(
  relation: RelationFacts,
  role: RoleFacts,
  context: Context,
  { command, row }: { readonly command: Command; readonly row?: JudgedRow | undefined },
): Predicate {
  if (seesAllRows(relation, role)) return alwaysTrue
  const policies = policiesFor(relation, role, command)
  if (!policies.some(policy => policy.permissive)) return alwaysFalse
  const texts = policies.map(policy => expressionOf(policy, command)!)
  const guarding = guardedBy(relation, texts, context)
  return joinPolicies(
    policies.map((policy, i) => ({
      permissive: policy.permissive,
      predicate: rowsOfPolicy({ policy, text: texts[i]!, row }, relation, role, guarding),
    })),
  )
}

/** What the policies that count for a role say of a row, in SQL that calls the table by its own name: for where they do not
 *  compile. Pure. @throws TABLE_REFUSED, FactNeeded */
export function askedCondition({ facts, relation, role, command = 'SELECT' }: AccessInput): string {
  assertPrivileged(relation, role, facts.privileges(relation.table.oid, role.oid, command), command)
  if (seesAllRows(relation, role)) return 'true'
  const policies = policiesFor(relation, role, command)
  const texts = (permissive: boolean): string[] =>
    policies.filter(policy => policy.permissive === permissive).map(policy => `(${expressionOf(policy, command)})`)
  const granting = texts(true)
  if (granting.length === 0) return 'false'
  return [...texts(false), `(${granting.join(' OR ')})`].join(' AND ')
}

/** Rows that these policies let through together. */
export function joinPolicies(
  policies: readonly { readonly permissive: boolean; readonly predicate: Predicate }[],
): Predicate {
  const of = (permissive: boolean): Predicate[] =>
    policies.filter(policy => policy.permissive === permissive).map(({ predicate }) => predicate)
  return and(...of(false), or(...of(true)))
}

/** A policy without USING (WITH CHECK only) says nothing about SELECT, one FOR SELECT nothing about INSERT. */
function expressionOf({ command, using, check }: PolicyFacts, of: Command): string | null {
  if (of === 'SELECT') return using
  return command === 'SELECT' ? null : (check ?? using)
}

const policiesFor = (relation: RelationFacts, role: RoleFacts, command: Command): PolicyFacts[] =>
  relation.policies.filter(
    policy =>
      expressionOf(policy, command) !== null && policy.roles.some(oid => oid === 0 || role.privilegesOf.has(oid)),
  )

/** What policies with subqueries read may not come back to their own table, as Postgres finds when it rewrites a query;
 *  a function's body is rewritten by itself, and would call itself until the stack is full.
 *  @throws TABLE_REFUSED where Postgres raises */
function guardedBy(relation: RelationFacts, texts: readonly string[], context: Context): Context {
  if (!texts.some(text => holdsSubquery(parseExpression(text)))) return context
  const isSame = (each: RelationFacts): boolean => each.table.oid === relation.table.oid
  if (context.guarded.some(isSame))
    return refused(
      context,
      `raises: infinite recursion detected in policy for relation "${relation.table.name}"`,
      `let the policies of ${nameOf(relation)} read it through a SECURITY DEFINER function`,
    )
  if (context.guardedByAll.some(isSame))
    return unsupported(context, `${nameOf(relation)}, whose policies read it again through a function`)
  const guarded = [...context.guarded, relation]
  return { ...context, guarded, guardedByAll: [...context.guardedByAll, relation] }
}

const holdsSubquery = (expression: Node): boolean => JSON.stringify(expression).includes('"SubLink"')

/** @param text what the policy says of the command at hand */
function rowsOfPolicy(
  { policy, text, row }: { readonly policy: PolicyFacts; readonly text: string; readonly row?: JudgedRow | undefined },
  relation: RelationFacts,
  role: RoleFacts,
  context: Context,
): Predicate {
  const label = `policy "${policy.name}" on ${nameOf(relation)}`
  const labelled: Context = {
    ...context,
    label: context.label.startsWith('policy ') ? `${context.label} (by ${label})` : label,
    scalars: null,
  }
  const source: Source = {
    alias: relation.table.name,
    relation,
    privileges: null,
    base: 0,
    columnAliases: [],
    optional: false,
    ...(row === undefined ? {} : { row }),
  }
  const scope: Scope = {
    context: labelled,
    sources: [source],
    named: new Map(),
    outer: null,
    parameters: null,
    // Policy text is printed with every name qualified that is not in pg_catalog.
    searchPath: [],
    viewer: role,
    lateParsed: false,
  }
  try {
    const condition = compileCondition(parseExpression(text), scope, true)
    const predicate = asCondition(condition.predicate)
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
  if (seesAllRows(relation, role) || policiesFor(relation, role, 'SELECT').some(policy => policy.permissive)) return []
  const message = `row-level security is on for ${name} and no policy lets role ${role.name} SELECT: the query is empty`
  return [{ code: 'NO_POLICY', message }]
}
