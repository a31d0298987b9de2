// From what each role would be told of each tracked table to findings. Pure.

import { TidegateError } from '../../protocol/tidegate-error.ts'
import { identifier, qualified } from '../admin/script.ts'
import type { Explanation, Problem } from '../explain/explanation.ts'
import { failure, ok, shell, warning } from './checks.ts'
import { type DatabaseCheck, sql } from './database-checks.ts'
import type { Finding, Remedy } from './finding.ts'

/** A tracked table. */
export interface TableFacts {
  readonly schema: string
  readonly name: string
  /** Of its own, not of a partition above it. */
  readonly hasPrimaryKey: boolean
  /** A unique index that a primary key could be made of; null: there is none. */
  readonly keyIndex: string | null
  /** A name for a new column. */
  readonly freeColumn: string
  /** Itself or partitions of it, in SQL. */
  readonly unlogged: readonly string[]
  readonly isPartitioned: boolean
}

export interface SeenTable {
  readonly facts: TableFacts
  /** By role; what was thrown instead. */
  readonly seen: ReadonlyMap<string, Explanation | TidegateError>
}

export interface TablesSeen {
  readonly tables: readonly SeenTable[]
  /** Names of tables whose policies bind their owner too. */
  readonly forced: ReadonlySet<string>
  /** Tables that were not looked at. */
  readonly left: number
  /** Whether there is a role to look for. */
  readonly hasRoles: boolean
}

const tableChecks = ['table-kind', 'primary-key', 'row-security'] as const
const roleChecks = [
  ...(['table-access', 'policy-missing', 'policy-asked', 'policy-raises', 'policy-inputs'] as const),
  ...(['replica-identity', 'index-readable'] as const),
]

/** What is true of each table where nothing is said. */
const fine: Readonly<Record<(typeof tableChecks)[number] | (typeof roleChecks)[number], string>> = {
  'table-kind': 'can be followed',
  'primary-key': 'has a primary key',
  'row-security': 'has row-level security on',
  'table-access': 'may be read by a role of JWT_ROLES',
  'policy-missing': 'has a policy for a role of JWT_ROLES',
  'policy-asked': 'has policies that are judged here',
  'policy-raises': 'has policies that do not raise',
  'policy-inputs': 'has policies that read tracked tables alone',
  'replica-identity': 'has old rows with all that policies read',
  'index-readable': 'can be judged by tables that the login reads whole',
}

export function judgeTables({ tables, forced, left, hasRoles }: TablesSeen): Finding[] {
  if (tables.length === 0) return [ok('table-kind', 'no table is tracked')]
  const found = distinct(tables.flatMap(table => judgeTable(table, forced)))
  const said = new Set(found.filter(({ verdict }) => verdict !== 'ok').map(({ check }) => check))
  const looked = [...tableChecks, ...(hasRoles ? roleChecks : [])]
  const count = tables.length === 1 ? 'the tracked table' : `each of ${tables.length} tracked tables`
  const skipped = left > 0 ? `; ${left} more were not looked at` : ''
  for (const check of looked) if (!said.has(check)) found.push(ok(check, `${count} ${fine[check]}${skipped}`))
  return found
}

/** A table that several policies read is told once. */
function distinct(findings: readonly Finding[]): Finding[] {
  const byText = new Map(
    findings.map(finding => [JSON.stringify([finding.check, finding.about, finding.reason]), finding]),
  )
  return [...byText.values()]
}

function judgeTable({ facts, seen }: SeenTable, forced: ReadonlySet<string>): Finding[] {
  const refusal = [...seen.values()].find(answer => answer instanceof TidegateError)
  const found: Finding[] = []
  if (refusal !== undefined) found.push(...refusedTable(facts, refusal))
  if (!facts.hasPrimaryKey) found.push(primaryKeyFinding(facts))
  const told = [...seen].flatMap(([role, answer]) => (answer instanceof TidegateError ? [] : [{ role, answer }]))
  if (told.length === 0) return found
  if (told[0]!.answer.rowSecurity === 'off') found.push(rowSecurityFinding(facts))
  found.push(...accessFindings(facts, told))
  found.push(...policyFindings(facts, told))
  for (const { answer } of told) found.push(...answer.problems.flatMap(each => problemFinding(each, answer, forced)))
  const lacksIdentity = found.some(each => each.check === 'replica-identity' && each.about === nameOf(facts))
  if (!lacksIdentity) found.push(...filterFindings(facts, told[0]!.answer))
  return found
}

function refusedTable(facts: TableFacts, refusal: TidegateError): Finding[] {
  // Its row filter is told of the publication.
  if (refusal.message.includes('row filter')) return []
  const name = nameOf(facts)
  const more = { about: name, code: refusal.code }
  const mend = facts.unlogged.map(table => `ALTER TABLE ${table} SET LOGGED;`)
  const remedy = mend.length > 0 ? sql(mend.join('\n')) : shell(`tidegate untrack ${word(name)}`)
  return [failure('table-kind', refusal.message.replace(/; .*$/, ''), remedy, more)]
}

function primaryKeyFinding(facts: TableFacts): Finding {
  const table = quote(facts)
  const { keyIndex, freeColumn } = facts
  const remedy =
    keyIndex === null
      ? sql(
          `ALTER TABLE ${table} ADD COLUMN ${identifier(freeColumn)} bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;`,
          'which writes the table anew; or make a key of columns that it has',
        )
      : sql(`ALTER TABLE ${table} ADD PRIMARY KEY USING INDEX ${identifier(keyIndex)};`)
  return failure('primary-key', `${nameOf(facts)} has no primary key: its rows cannot be named`, remedy, {
    about: nameOf(facts),
    code: 'NO_PRIMARY_KEY',
  })
}

const rowSecurityFinding = (facts: TableFacts): Finding =>
  warning(
    'row-security',
    `row-level security is off: every row goes to whoever may SELECT it`,
    sql(`ALTER TABLE ${quote(facts)} ENABLE ROW LEVEL SECURITY;`, 'and write policies: without one nobody sees a row'),
    { about: nameOf(facts), code: 'NO_ROW_SECURITY' },
  )

type Told = readonly { readonly role: string; readonly answer: Explanation }[]

const accessCodes: ReadonlySet<string> = new Set(['TABLE_REFUSED', 'KEY_NOT_READABLE'])

/** Few tables are for all roles: told is only what no role can read. */
function accessFindings(facts: TableFacts, told: Told): Finding[] {
  const about = { about: nameOf(facts) }
  const kept = ({ answer }: Told[number]): Problem | undefined =>
    answer.problems.find(({ code }) => accessCodes.has(code) && !isOfPolicy(answer, code))
  const readers = told.filter(each => kept(each) === undefined)
  if (readers.length === 0) {
    const { role, answer } = told.at(-1)!
    const { code, message } = kept({ role, answer })!
    const hidden = code === 'KEY_NOT_READABLE' || answer.columns.readable.length > 0
    const grants = hidden
      ? [`GRANT SELECT (${keyOf(answer).map(identifier).join(', ')}) ON ${quote(facts)} TO ${identifier(role)};`]
      : [
          `GRANT USAGE ON SCHEMA ${identifier(facts.schema)} TO ${identifier(role)};`,
          `GRANT SELECT ON ${quote(facts)} TO ${identifier(role)};`,
        ]
    return [
      warning(
        'table-access',
        `no role of JWT_ROLES can read it: ${message.replace(/: GRANT .*$/, '')}`,
        sql(grants.join('\n')),
        {
          ...about,
          code,
        },
      ),
    ]
  }
  const hasPolicy = ({ answer }: Told[number]): boolean => answer.warnings.every(({ code }) => code !== 'NO_POLICY')
  if (readers.some(hasPolicy)) return []
  const roles = readers.map(({ role }) => role)
  return [
    warning(
      'policy-missing',
      `row-level security is on, and no policy lets ${roles.join(' or ')} SELECT: every live query is empty. Write a policy that says which rows; that it is none, says:`,
      sql(
        `CREATE POLICY "nobody reads it" ON ${quote(facts)} FOR SELECT TO ${roles.map(identifier).join(', ')} USING (false);`,
      ),
      { ...about, code: 'NO_POLICY' },
    ),
  ]
}

/** The primary key is among what is read, and nothing else where no policy reads. */
const keyOf = ({ columns, tables }: Explanation): readonly string[] =>
  tables[0]!.columns.filter(name => columns.hidden.includes(name))

/** A policy raises for this role: told of the policy. */
const isOfPolicy = ({ policies }: Explanation, code: string): boolean =>
  code === 'TABLE_REFUSED' && policies.some(({ judged }) => judged === 'refused')

function policyFindings(facts: TableFacts, told: Told): Finding[] {
  return told.flatMap(({ role, answer }) =>
    answer.policies.flatMap(({ name, judged, reason }) => {
      const about = `${nameOf(facts)}, policy "${name}"`
      if (judged === 'asked') return [askedFinding(about, reason ?? '')]
      if (judged !== 'refused') return []
      const text = reason ?? ''
      const untracked = /^(.*), which is not tracked \(run tidegate track .*\)$/s.exec(text)?.[1]
      if (untracked !== undefined) return [untrackedFinding(untracked, about)]
      const isForAll = told.every(each =>
        each.answer.policies.some(policy => policy.name === name && policy.judged === 'refused'),
      )
      const raises = `for ${role} it ${text.replace(/; [^;]*$/, '')}: a SELECT raises, and the table is refused`
      return [(isForAll ? failure : warning)('policy-raises', raises, grantOf(text), { about, code: 'TABLE_REFUSED' })]
    }),
  )
}

const askedFinding = (about: string, reason: string): Finding =>
  warning(
    'policy-asked',
    `Postgres is asked, as it uses ${reason}: grants and revocations may come late, and such queries are few (ASKED_MAX_AUDIENCES_PER_TABLE)`,
    null,
    { about, code: 'POLICY_ASKED' },
  )

const untrackedFinding = (table: string, about: string): Finding =>
  failure('policy-inputs', `${table}, which ${about} reads, is not tracked`, shell(`tidegate track ${word(table)}`), {
    about: table,
    code: 'POLICY_UNSUPPORTED',
  })

const name = '(?:[a-z_][a-z0-9_]*|"(?:[^"]|"")+")'
const grants = new RegExp(
  `(?:; |, or )(GRANT [A-Z]+(?: \\(${name}\\))? ON (?:SCHEMA )?${name}(?:\\.${name})? TO ${name})$`,
)
const grantsExecute = new RegExp(
  `; (GRANT EXECUTE ON FUNCTION ${name}\\.${name}) and (USAGE ON SCHEMA ${name}) (TO ${name})$`,
)

/** The statement at the end of a refusal. Null too where a name in it holds what could be taken for one. */
function grantOf(text: string): Remedy | null {
  if (text.split('GRANT ').length !== 2) return null
  const execute = grantsExecute.exec(text)
  if (execute !== null) return sql(`${execute[1]} ${execute[3]};\nGRANT ${execute[2]} ${execute[3]};`)
  const statement = grants.exec(text)?.[1]
  return statement === undefined ? null : sql(`${statement};`)
}

const problemChecks: Readonly<Record<string, { readonly check: DatabaseCheck; readonly judge: typeof failure }>> = {
  IDENTITY_INSUFFICIENT: { check: 'replica-identity', judge: failure },
  INDEX_NOT_READABLE: { check: 'index-readable', judge: failure },
  TABLE_UNKNOWN: { check: 'policy-inputs', judge: failure },
  POLICY_UNSUPPORTED: { check: 'policy-inputs', judge: warning },
}

/** Where policies read no more than what old rows carry, filters of clients may. */
function filterFindings(facts: TableFacts, { tables }: Explanation): Finding[] {
  const { replicaIdentity } = tables[0]!
  const about = { about: nameOf(facts), code: 'IDENTITY_INSUFFICIENT' }
  if (replicaIdentity === 'full') return []
  const refused = 'filters of clients by columns outside of it are refused'
  if (replicaIdentity === 'index')
    return [ok('replica-identity', `old rows carry the columns of an index: ${refused}`, about)]
  const remedy = facts.isPartitioned
    ? shell(`tidegate track ${word(nameOf(facts))}`)
    : sql(`ALTER TABLE ${quote(facts)} REPLICA IDENTITY FULL;`)
  const carried = replicaIdentity === 'default' ? 'the primary key alone' : 'nothing'
  return [warning('replica-identity', `old rows carry ${carried}: ${refused}`, remedy, about)]
}

/** What else is a problem is told by other checks: of roles, keys and privileges. */
function problemFinding(problem: Problem, answer: Explanation, forced: ReadonlySet<string>): Finding[] {
  const { code, message, run } = problem
  const known = problemChecks[code]
  if (known === undefined || run === null) return []
  const named = [...message.matchAll(/[^\s,;]+\.[^\s,;]+/g)].map(([name]) => name)
  const about = named[0] ?? answer.table
  return [known.judge(known.check, message, remedyOf(run, code, about, forced), { about, code })]
}

function remedyOf(run: string, code: string, about: string, forced: ReadonlySet<string>): Remedy {
  // The read function of an owner whose policies bind it too reads no more.
  if (code === 'INDEX_NOT_READABLE' && forced.has(about)) {
    const [schema = '', ...rest] = about.split('.')
    return sql(`ALTER TABLE ${qualified(schema, rest.join('.'))} NO FORCE ROW LEVEL SECURITY;`)
  }
  if (!run.startsWith('tidegate track ')) return sql(`${run};`)
  return shell(`tidegate track ${word(run.slice('tidegate track '.length))}`)
}

const nameOf = ({ schema, name }: TableFacts): string => `${schema}.${name}`
const quote = ({ schema, name }: TableFacts): string => qualified(schema, name)

/** As a shell takes it. */
const word = (text: string): string => (/^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`)
