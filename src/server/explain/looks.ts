// Which memberships a policy asks for about one row, and what it finds: the reasons of an answer. Pure.
import type { Expr, Predicate, Row, SemiJoin } from '../../predicate/algebra.ts'
import { semiJoinsOf } from '../../predicate/columns.ts'
import { valuingOf } from '../../predicate/evaluate.ts'
import { splitWhere } from '../../predicate/hops.ts'
import { pinsOf } from '../../predicate/pins.ts'
import type { MembershipLook } from './explanation.ts'
import type { InnerRows } from './inner-rows.ts'

/** Inner rows of a chain that are followed further. */
const maxThrough = 10

/** @param predicate bound, its memberships loaded */
export const looksOf = (predicate: Predicate, row: Row, inner: InnerRows): MembershipLook[] =>
  signedJoins(predicate, false).map(({ join, negated }) => lookAt(join, negated, row, inner))

function lookAt(join: SemiJoin, negated: boolean, row: Row, inner: InnerRows): MembershipLook {
  const joined = join.keys.map(({ inner: { name }, outer }): [string, string | null] => [
    name,
    valuingOf(outer)(row, inner) ?? null,
  ])
  const { columns } = inner.tableOf(join)
  const pins = pinsOf(join)
  const pinned = pins.columns.map((column, index): [string, string] => [columns[column]!.name, pins.values[index]!])
  const candidates = inner.candidates(join, row)
  const { rest } = splitWhere(join)
  return {
    table: `${join.table.schema}.${join.table.name}`,
    key: Object.fromEntries([...joined, ...pinned]),
    negated,
    rows: candidates.filter(each => inner.satisfies(join, each)).length,
    candidates: candidates.length,
    through:
      semiJoinsOf(rest).length === 0 ? [] : candidates.slice(0, maxThrough).map(each => looksOf(rest, each, inner)),
  }
}

interface SignedJoin {
  readonly join: SemiJoin
  readonly negated: boolean
}

/** Semi-joins in the order of the policy, each with whether it stands under a NOT. */
function signedJoins(node: Predicate, negated: boolean): SignedJoin[] {
  switch (node.kind) {
    case 'and':
    case 'or':
      return eachOnce(node.args.flatMap(arg => signedJoins(arg, negated)))
    case 'not':
      return signedJoins(node.arg, !negated)
    case 'semiJoin':
      return [{ join: node, negated }, ...node.keys.flatMap(({ outer }) => joinsOfValue(outer, negated))]
    case 'isDistinct':
      // `p IS DISTINCT FROM true` is how "p is not true" is written, where NULL counts as false.
      return isTrueConst(node.right) && node.left.kind === 'predicate'
        ? signedJoins(node.left.predicate, !negated)
        : [...joinsOfValue(node.left, negated), ...joinsOfValue(node.right, negated)]
    default:
      return semiJoinsOf(node).map(join => ({ join, negated }))
  }
}

const joinsOfValue = (expr: Expr, negated: boolean): SignedJoin[] =>
  expr.kind === 'predicate'
    ? signedJoins(expr.predicate, negated)
    : semiJoinsOf({ kind: 'boolean', arg: expr }).map(join => ({ join, negated }))

const isTrueConst = (expr: Expr): boolean => expr.kind === 'const' && expr.value === 't'

const eachOnce = (joins: readonly SignedJoin[]): SignedJoin[] =>
  joins.filter(({ join }, index) => joins.findIndex(other => other.join === join) === index)
