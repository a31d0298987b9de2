// Builds predicates that are already simplified as far as three-valued logic allows.
import { alwaysFalse, alwaysTrue, type Predicate, type SemiJoin } from './algebra.ts'
import { fingerprint } from './fingerprint.ts'

/** Conjunction: flattens, drops `true` and what stands twice, is `false` as soon as one part is. `unknown` stays: it is not `false`. */
export const and = (...args: readonly Predicate[]): Predicate => combine('and', args)

/** Disjunction: flattens, drops `false` and what stands twice, is `true` as soon as one part is. */
export const or = (...args: readonly Predicate[]): Predicate => combine('or', args)

/** Negation: of a constant a constant, of a negation its argument. */
export function not(arg: Predicate): Predicate {
  if (arg.kind === 'true') return alwaysFalse
  if (arg.kind === 'false') return alwaysTrue
  if (arg.kind === 'unknown') return arg
  return arg.kind === 'not' ? arg.arg : { kind: 'not', arg }
}

function combine(kind: 'and' | 'or', args: readonly Predicate[]): Predicate {
  const neutral = kind === 'and' ? 'true' : 'false'
  const dominant = kind === 'and' ? 'false' : 'true'
  const distinct = new Set<Predicate>()
  let hasUnknown = false
  for (const arg of args.flatMap(part => (part.kind === kind ? part.args : [part]))) {
    if (arg.kind === dominant) return arg
    if (arg.kind === neutral || (arg.kind === 'unknown' && hasUnknown)) continue
    hasUnknown ||= arg.kind === 'unknown'
    distinct.add(arg)
  }
  const parts = distinct.size < 2 ? [...distinct] : eachOnce(distinct)
  if (parts.length === 0) return kind === 'and' ? alwaysTrue : alwaysFalse
  return parts.length === 1 ? parts[0]! : { kind, args: parts }
}

/** A membership that its own policy and the one that reads it tie to `auth.uid()` says so twice, in each reader's copy. */
function eachOnce(parts: Iterable<Predicate>): Predicate[] {
  const byName = new Map<string, Predicate>()
  for (const part of parts) {
    const name = fingerprint(part)
    if (!byName.has(name)) byName.set(name, part)
  }
  return [...byName.values()]
}

/** Leaves out of a conjunction each OR that another part makes true: `a AND (a OR b)` is `a`, in three-valued logic too. A
 *  policy that shows everybody their own memberships, and admins all, adds nothing where one's own are asked for. */
export function absorbed(predicate: Predicate): Predicate {
  if (predicate.kind !== 'and') return predicate
  const names = new Set(predicate.args.map(fingerprint))
  const stands = (part: Predicate): boolean =>
    part.kind === 'and' ? part.args.every(stands) : names.has(fingerprint(part))
  return and(...predicate.args.filter(part => part.kind !== 'or' || !part.args.some(stands)))
}

/** A predicate of which is only asked whether it is true, as of a policy or a WHERE: where `false` and `unknown` mean the
 *  same, `IN (SELECT ...)` becomes `EXISTS`, which needs no count of NULLs and takes several keys. Negated parts stay.
 *  Do not negate the result. */
export function asCondition(predicate: Predicate): Predicate {
  if (predicate.kind === 'and') return and(...predicate.args.map(asCondition))
  if (predicate.kind === 'or') return or(...predicate.args.map(asCondition))
  if (predicate.kind === 'unknown') return alwaysFalse
  if (predicate.kind !== 'semiJoin') return predicate
  return { ...predicate, where: asCondition(predicate.where), nullAware: false } satisfies SemiJoin
}
