// Says in one sentence why a row is visible or hidden. Pure.
import type { MembershipLook, PolicyAnswer } from './explanation.ts'

/** `"readers" (public.members (room_id=7, user_id=...) has 1 row; public.bans none)`, from what decided. */
export function becauseOf(visible: boolean | null, policies: readonly PolicyAnswer[]): string {
  const against = policies.filter(({ kind, answer }) => kind === 'restrictive' && answer !== 'true')
  const permissive = policies.filter(({ kind }) => kind === 'permissive')
  const granting = permissive.filter(({ answer }) => answer === 'true')
  if (visible === true) {
    if (granting.length > 0) return `visible by ${granting.map(sayPolicy).join(', and by ')}`
    return `visible by what Postgres is asked: ${named(permissive.filter(isAsked))}`
  }
  if (permissive.length === 0) return 'hidden: no permissive policy binds this role'
  const refusing = against.filter(({ answer }) => answer === 'false' || answer === 'unknown')
  if (refusing.length > 0) return `hidden by restrictive ${refusing.map(sayPolicy).join(', and by ')}`
  if (visible === null) return `only Postgres can tell, by ${named(policies.filter(isAsked))}`
  if (granting.length > 0) return `hidden by what Postgres is asked: ${named(against)}`
  return `hidden: no permissive policy lets it through: ${permissive.map(sayPolicy).join('; ')}`
}

const isAsked = ({ answer }: PolicyAnswer): boolean => answer === 'asked'

const named = (policies: readonly PolicyAnswer[]): string => policies.map(({ name }) => `policy "${name}"`).join(', ')

/** @example sayPolicy(answer) // 'policy "own": unknown, a NULL decides' */
export function sayPolicy({ name, answer, reason, memberships }: PolicyAnswer): string {
  const looks = memberships.map(sayLook).join('; ')
  if (answer === 'true') return looks === '' ? `policy "${name}"` : `policy "${name}": ${looks}`
  const why = { false: '', unknown: 'unknown, a NULL decides', asked: 'asked of Postgres' } as Record<string, string>
  const said = [why[answer] ?? reason ?? answer, looks].filter(text => text !== '').join('; ')
  return said === '' ? `policy "${name}" is false` : `policy "${name}": ${said}`
}

/** @example sayLook(look) // 'public.members (room_id=7) has 1 row' */
export function sayLook(look: MembershipLook): string {
  const through = look.through.flat()
  const chain = through.length === 0 ? '' : `, through ${through.map(sayLook).join(', ')}`
  return `${sayFound(look)}${chain}`
}

/** What was found of one table, without what it leads to. */
export function sayFound({ table, key, rows, candidates, through }: MembershipLook): string {
  const pairs = Object.entries(key).map(([column, value]) => `${column}=${shownValue(value)}`)
  const where = pairs.length === 0 ? table : `${table} (${pairs.join(', ')})`
  if (rows > 0) return `${where} has ${count(rows)}`
  if (candidates === 0) return `${where} has none`
  const isEnd = through.length > 0 && through.flat().every(look => look.rows === 0 && !look.negated)
  const rest = isEnd ? 'leads nowhere' : 'does not satisfy the rest of the subquery'
  return `${where} has ${count(candidates)}, which ${candidates === 1 ? rest : 'do not'}`
}

const count = (rows: number): string => (rows === 1 ? '1 row' : `${rows} rows`)

const shownValue = (value: string | null): string =>
  value === null ? 'NULL' : value.length > 60 ? `${value.slice(0, 60)}…` : value
