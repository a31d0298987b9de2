// Whether a condition can only be true if a row is there: what makes a LEFT JOIN an inner one.
import type { Expr, Predicate } from '../../predicate/algebra.ts'
import { nodeOf } from './join-columns.ts'
import type { JoinedTable } from './policy-scope.ts'

/** False when in doubt. */
export function rejectsNulls(part: Predicate, tables: readonly JoinedTable[]): boolean {
  const rejects = (each: Predicate): boolean => rejectsNulls(each, tables)
  switch (part.kind) {
    case 'false':
    case 'unknown':
      return true
    case 'and':
      return part.args.some(rejects)
    case 'or':
      return part.args.every(rejects)
    case 'not':
      return part.arg.kind === 'isNull' ? isNullWith(part.arg.arg, tables) : isStrict(part.arg) && rejects(part.arg)
    case 'compare':
      return isNullWith(part.left, tables) || isNullWith(part.right, tables)
    case 'in':
    case 'any':
      return isNullWith(part.left, tables)
    case 'like':
    case 'boolean':
      return isNullWith(part.arg, tables)
    case 'semiJoin':
      return !part.nullAware && part.keys.some(({ outer }) => isNullWith(outer, tables))
    default:
      return false
  }
}

/** Unknown over a NULL, so that its negation is too. */
const isStrict = (part: Predicate): boolean =>
  part.kind === 'compare' ||
  part.kind === 'like' ||
  part.kind === 'boolean' ||
  (part.kind === 'in' && part.items.length > 0)

/** Whether the value is NULL when all columns of these tables are. */
function isNullWith(expr: Expr, tables: readonly JoinedTable[]): boolean {
  if (expr.kind === 'column') return nodeOf(expr.column, tables) !== null
  if (expr.kind === 'cast' || expr.kind === 'jsonGet') return isNullWith(expr.arg, tables)
  return false
}

/** Whether an expression is NULL whatever the row. */
export function isNullExpr(expr: Expr): boolean {
  if (expr.kind === 'const') return expr.value === null
  if (expr.kind === 'cast') return isNullExpr(expr.arg)
  if (expr.kind === 'jsonGet') return isNullExpr(expr.arg) || isNullExpr(expr.key)
  return false
}

/** Whether a condition is unknown whatever the row. */
export function isUnknown(part: Predicate): boolean {
  switch (part.kind) {
    case 'unknown':
      return true
    case 'compare':
      return isNullExpr(part.left) || isNullExpr(part.right)
    case 'in':
      return part.items.length > 0 && isNullExpr(part.left)
    case 'like':
      return isNullExpr(part.arg) || isNullExpr(part.pattern)
    case 'boolean':
      return isNullExpr(part.arg)
    case 'not':
      return isUnknown(part.arg)
    default:
      return false
  }
}
