// Parses SQL with Postgres's own grammar, compiled to WebAssembly.
import { loadModule, type Node, parseSync, type SelectStmt } from 'libpg-query'

let loading: Promise<void> | undefined

/** Loads the grammar once per process. Parsing before it resolves throws. */
export function loadGrammar(): Promise<void> {
  loading ??= loadModule()
  return loading
}

/** @param text an expression as pg_get_expr prints it
 *  @throws the grammar's error when the text does not parse */
export function parseExpression(text: string): Node {
  const select = onlySelect(statementsOf(`SELECT (${text}\n)`))
  const target = select?.targetList?.[0]
  const value = target !== undefined && 'ResTarget' in target ? target.ResTarget.val : undefined
  if (value === undefined) throw new Error(`not an expression: ${text}`)
  return value
}

/** The single SELECT that a function's body consists of; null when it is anything else. */
export function parseBody(body: { kind: 'source' | 'standard'; text: string }): SelectStmt | null {
  if (body.kind === 'source') return onlySelect(statementsOf(body.text))
  const [statement] = statementsOf(`CREATE FUNCTION f() RETURNS text LANGUAGE sql ${body.text}`)
  if (statement === undefined || !('CreateFunctionStmt' in statement)) return null
  const standard = statement.CreateFunctionStmt.sql_body
  if (standard === undefined) return null
  if ('ReturnStmt' in standard) {
    const { returnval } = standard.ReturnStmt
    return returnval === undefined ? null : { targetList: [{ ResTarget: { val: returnval } }] }
  }
  return onlySelect(flatten(standard))
}

const statementsOf = (text: string): Node[] =>
  (parseSync(text).stmts ?? []).flatMap(raw => (raw.stmt === undefined ? [] : [raw.stmt]))

function onlySelect(statements: readonly Node[]): SelectStmt | null {
  const [statement] = statements
  return statements.length === 1 && statement !== undefined && 'SelectStmt' in statement ? statement.SelectStmt : null
}

/** BEGIN ATOMIC holds a list of lists. */
const flatten = (node: Node): Node[] => ('List' in node ? (node.List.items ?? []).flatMap(flatten) : [node])

/** The only expression of a SELECT that has nothing else: `SELECT auth.uid()`. Null for any other SELECT. */
export function scalarTarget(select: SelectStmt): Node | null {
  const { targetList, limitOption, op, ...rest } = select
  if (targetList?.length !== 1 || Object.keys(rest).length > 0 || (op !== undefined && op !== 'SETOP_NONE')) return null
  if (limitOption !== undefined && limitOption !== 'LIMIT_OPTION_DEFAULT') return null
  const [target] = targetList
  return target !== undefined && 'ResTarget' in target ? (target.ResTarget.val ?? null) : null
}
