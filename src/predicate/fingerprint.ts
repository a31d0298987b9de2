// A predicate's name: the same text for predicates that mean the same by the laws of AND and OR, so that subscribers who
// asked in another order share one audience.
import type { Expr, Predicate, SqlType } from './algebra.ts'

/** Stable canonical text; AND, OR and IN forget order and repetition. Contains the constants: do not log it. */
export function fingerprint(predicate: Predicate): string {
  switch (predicate.kind) {
    case 'true':
    case 'false':
    case 'unknown':
      return predicate.kind
    case 'and':
    case 'or':
      return node(predicate.kind, unordered(flat(predicate.kind, predicate.args).map(fingerprint)))
    case 'not':
      return node('not', [fingerprint(predicate.arg)])
    case 'compare':
      return comparison(predicate.op, exprText(predicate.left), exprText(predicate.right))
    case 'in':
      return node('in', [exprText(predicate.left), ...unordered(predicate.items.map(exprText))])
    case 'any':
      return node('any', [exprText(predicate.left), exprText(predicate.array)])
    case 'like':
      return node(predicate.insensitive ? 'ilike' : 'like', [exprText(predicate.arg), exprText(predicate.pattern)])
    case 'isNull':
      return node('isNull', [exprText(predicate.arg)])
    case 'isDistinct':
      return node('isDistinct', unordered([exprText(predicate.left), exprText(predicate.right)]))
    case 'boolean':
      return node('boolean', [exprText(predicate.arg)])
    case 'semiJoin': {
      const keys = predicate.keys.map(({ inner, outer }) => node('key', [exprText(inner), exprText(outer)]))
      const kind = predicate.nullAware ? 'inSelect' : 'exists'
      return node(kind, [String(predicate.table.oid), fingerprint(predicate.where), ...unordered(keys)])
    }
  }
}

/** The same for an expression. */
function exprText(expr: Expr): string {
  const type = typeText(expr.type)
  switch (expr.kind) {
    case 'column':
      return node('column', [String(expr.column), type])
    case 'const':
      return node('const', [type, expr.value === null ? 'null' : JSON.stringify(expr.value)])
    case 'setting':
      return node('setting', [type, JSON.stringify(expr.name), String(expr.missingOk)])
    case 'cast':
      return node('cast', [type, exprText(expr.arg)])
    case 'coalesce':
      return node('coalesce', [type, ...expr.args.map(exprText)])
    case 'nullif':
      return node('nullif', [type, exprText(expr.left), exprText(expr.right)])
    case 'jsonGet':
      return node(expr.asText ? 'jsonText' : 'json', [exprText(expr.arg), exprText(expr.key)])
    case 'array':
      return node('array', [type, ...expr.items.map(exprText)])
    case 'predicate':
      return node('predicate', [fingerprint(expr.predicate)])
    case 'case':
      return node('case', [type, ...expr.whens.map(fingerprint), ...[...expr.values, expr.otherwise].map(exprText)])
    case 'call':
      return node(`call ${expr.name}`, [type, ...expr.args.map(exprText)])
    case 'now':
      return node('now', [type, `${expr.shift.months} ${expr.shift.days} ${expr.shift.micros}`])
  }
}

const node = (kind: string, parts: readonly string[]): string => `${kind}(${parts.join(',')})`

const unordered = (parts: readonly string[]): string[] => [...new Set(parts)].sort()

function flat(kind: 'and' | 'or', args: readonly Predicate[]): Predicate[] {
  return args.flatMap(arg => (arg.kind === kind ? flat(kind, arg.args) : [arg]))
}

const mirrored: Readonly<Record<string, string>> = { '=': '=', '<>': '<>', '>': '<', '>=': '<=' }

/** `5 < a` and `a > 5` are one: equality forgets the sides, `>` turns into `<`. */
function comparison(op: string, left: string, right: string): string {
  const mirror = mirrored[op]
  if (mirror === op) return node(op, [left, right].sort())
  return mirror === undefined ? node(op, [left, right]) : node(mirror, [right, left])
}

/** Types by OID; with the collation, by which the same comparison may mean another thing. */
const typeText = (type: SqlType): string =>
  type.collation === undefined ? String(type.oid) : `${type.oid}/${type.collation}`
