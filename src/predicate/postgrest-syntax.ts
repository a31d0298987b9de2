// PostgREST's filter grammar as syntax: what stands where, before anyone asks what the columns are.
//   condition  := column '.' { 'not.' } operator '.' value          (in a URL: column '=' { 'not.' } operator '.' value)
//   group      := { 'not.' } ('and' | 'or') '(' item { ',' item } ')'
// Inside a group a value ends at ',' or ')' unless it is quoted ("a,b", with \" and \\) or an array ({a,b}).
import { TidegateError } from '../protocol/tidegate-error.ts'

export type FilterNode =
  | {
      readonly kind: 'group'
      readonly op: 'and' | 'or'
      readonly negated: boolean
      readonly items: readonly FilterNode[]
    }
  | {
      readonly kind: 'condition'
      readonly column: string
      readonly negated: boolean
      readonly operator: string
      /** One value; a list for `in`. */
      readonly value: string | readonly string[]
    }

export interface FilterLimits {
  /** UTF-16 units of all names and values together. */
  readonly maxLength: number
  /** Groups within groups; a condition outside any group has depth 0. */
  readonly maxDepth: number
  /** Conditions, and items of `in` lists. */
  readonly maxTerms: number
}

/** Counts what one request's filters use of the limits. */
export class FilterBudget {
  readonly #limits: FilterLimits
  #terms = 0
  #length = 0

  constructor(limits: FilterLimits) {
    this.#limits = limits
  }

  /** @throws FILTER_TOO_COMPLEX */
  takeLength(length: number): void {
    this.#length += length
    if (this.#length > this.#limits.maxLength)
      throw tooComplex(`the filters are longer than ${this.#limits.maxLength} characters`)
  }

  takeTerm(): void {
    this.#terms++
    if (this.#terms > this.#limits.maxTerms)
      throw tooComplex(`the filters have more than ${this.#limits.maxTerms} terms`)
  }

  checkDepth(depth: number): void {
    if (depth > this.#limits.maxDepth)
      throw tooComplex(`a filter is nested deeper than ${this.#limits.maxDepth} groups`)
  }
}

/** The value side of `column=...`: everything after the operator is the value, commas and quotes included.
 *  @throws FILTER_INVALID, FILTER_TOO_COMPLEX */
export function parseCondition(column: string, text: string, budget: FilterBudget): FilterNode {
  const scanner = new Scanner(text, budget)
  const node = scanner.condition(column, true)
  scanner.end()
  return node
}

/** The value side of `and=(...)`, `or=(...)` and their `not.` forms. @throws FILTER_INVALID, FILTER_TOO_COMPLEX */
export function parseGroup(op: 'and' | 'or', negated: boolean, text: string, budget: FilterBudget): FilterNode {
  const scanner = new Scanner(text, budget)
  const node = scanner.group(op, negated, 1)
  scanner.end()
  return node
}

class Scanner {
  readonly #text: string
  readonly #budget: FilterBudget
  #at = 0

  constructor(text: string, budget: FilterBudget) {
    this.#text = text
    this.#budget = budget
  }

  end(): void {
    if (this.#at < this.#text.length) throw this.#invalid('ends before the text does')
  }

  group(op: 'and' | 'or', negated: boolean, depth: number): FilterNode {
    this.#budget.checkDepth(depth)
    this.#expect('(')
    const items: FilterNode[] = []
    do {
      items.push(this.#item(depth))
    } while (this.#take(','))
    this.#expect(')')
    return { kind: 'group', op, negated, items }
  }

  #item(depth: number): FilterNode {
    while (this.#take(' ')) {}
    const group = /^(not\.)?(and|or)(?=\()/.exec(this.#text.slice(this.#at, this.#at + 8))
    if (group !== null) {
      this.#at += group[0].length
      return this.group(group[2] as 'and' | 'or', group[1] !== undefined, depth + 1)
    }
    const column = this.#text[this.#at] === '"' ? this.#quoted() : this.#until(/[.,()]/g)
    if (column === '') throw this.#invalid('lacks a column')
    this.#expect('.')
    return this.condition(column, false)
  }

  condition(column: string, whole: boolean): FilterNode {
    let negated = false
    while (this.#text.startsWith('not.', this.#at)) {
      this.#at += 4
      negated = !negated
    }
    // Any word, so that one nobody knows is named in the refusal; `eq(any)` and `fts(english)` are words too.
    const operator = /^[a-z_]+(\([a-z_]*\))?/.exec(this.#text.slice(this.#at, this.#at + 40))?.[0] ?? ''
    if (operator === '') throw this.#invalid('lacks an operator; write column=eq.value')
    this.#at += operator.length
    this.#expect('.')
    this.#budget.takeTerm()
    const value = operator === 'in' ? this.#list() : whole ? this.#rest() : this.#value()
    return { kind: 'condition', column, negated, operator, value }
  }

  #list(): string[] {
    this.#expect('(')
    if (this.#take(')')) return []
    const items: string[] = []
    do {
      if (items.length > 0) this.#budget.takeTerm()
      items.push(this.#text[this.#at] === '"' ? this.#quotedWhole(/[,)]/) : this.#until(/[,)]/g))
    } while (this.#take(','))
    this.#expect(')')
    return items
  }

  #value(): string {
    const first = this.#text[this.#at]
    if (first === '"') return this.#quotedWhole(/[,)]/)
    if (first !== '{') return this.#until(/[,)]/g)
    const start = this.#at
    for (let quoted = false; ; this.#at++) {
      const char = this.#text[this.#at]
      if (char === undefined) throw this.#invalid('lacks a closing }')
      if (char === '\\') this.#at++
      else if (char === '"') quoted = !quoted
      else if (char === '}' && !quoted) break
    }
    this.#at++
    return this.#text.slice(start, this.#at)
  }

  #rest(): string {
    const value = this.#text.slice(this.#at)
    this.#at = this.#text.length
    return value
  }

  /** A quoted value, if a delimiter follows it; else the quotes are part of a plain one, as in PostgREST. */
  #quotedWhole(delimiter: RegExp): string {
    const start = this.#at
    const value = this.#quoted()
    const next = this.#text[this.#at]
    if (next === undefined || delimiter.test(next)) return value
    this.#at = start
    return this.#until(new RegExp(delimiter, 'g'))
  }

  #quoted(): string {
    let value = ''
    for (this.#at++; this.#text[this.#at] !== '"'; this.#at++) {
      if (this.#text[this.#at] === '\\') this.#at++
      const char = this.#text[this.#at]
      if (char === undefined) throw this.#invalid('lacks a closing quote')
      value += char
    }
    this.#at++
    return value
  }

  #until(stop: RegExp): string {
    stop.lastIndex = this.#at
    const end = stop.exec(this.#text)?.index ?? this.#text.length
    const value = this.#text.slice(this.#at, end)
    this.#at = end
    return value
  }

  #take(char: string): boolean {
    if (this.#text[this.#at] !== char) return false
    this.#at++
    return true
  }

  #expect(char: string): void {
    if (!this.#take(char)) throw this.#invalid(`needs "${char}"`)
  }

  #invalid(what: string): TidegateError {
    const shown = this.#text.length > 80 ? `${this.#text.slice(0, 80)}...` : this.#text
    return new TidegateError(
      'FILTER_INVALID',
      `the filter ${JSON.stringify(shown)} ${what} at character ${this.#at + 1}`,
    )
  }
}

const tooComplex = (what: string): TidegateError => new TidegateError('FILTER_TOO_COMPLEX', `${what}; simplify them`)
