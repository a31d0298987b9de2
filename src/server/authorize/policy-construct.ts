// Names a construct of SQL in words its author recognises, for refusals.
import type { Node } from 'libpg-query'
import { partsOf } from './policy-scope.ts'

const words: Readonly<Record<string, string>> = {
  CaseExpr: 'CASE',
  MinMaxExpr: 'GREATEST or LEAST',
  RowExpr: 'a row value',
  A_Indirection: 'an array subscript or a field of a composite',
  XmlExpr: 'XML',
  GroupingFunc: 'GROUPING',
  JsonIsPredicate: 'IS JSON',
  NamedArgExpr: 'a named argument',
  SetToDefault: 'DEFAULT',
}

/** @example describe(parsed) // 'function public.f()' */
export function describe(node: Node): string {
  if ('FuncCall' in node) return `function ${partsOf(node.FuncCall.funcname).join('.')}()`
  if ('A_Expr' in node) return `operator ${partsOf(node.A_Expr.name).join('.')}`
  if ('SQLValueFunction' in node) return (node.SQLValueFunction.op ?? '').replace(/^SVFOP_/, '').replace(/_N$/, '')
  if ('SubLink' in node) {
    if (node.SubLink.subLinkType === 'ARRAY_SUBLINK') return 'ARRAY(SELECT ...)'
    return 'a scalar subquery with FROM here'
  }
  if ('ColumnRef' in node) return `the name ${partsOf(node.ColumnRef.fields).join('.')}`
  const kind = Object.keys(node)[0] ?? 'an empty expression'
  return words[kind] ?? kind
}
