// Regular expressions, as far as Postgres's and these mean the same under every collation: characters, `.`, brackets with
// ranges, groups, alternatives, anchors and repetition. What depends on a locale (`\d`, `[[:alpha:]]`), back references and
// options are Postgres's.
//
// A pattern is run as an automaton, all of whose threads take each character together: no text makes it slow, as texts that
// clients choose would make an engine that tries one way after the other. A short one runs in the bits of two words: see
// regex-bits.ts.
import { bitMatcher, type Step } from './regex-bits.ts'

type Node =
  | { readonly kind: 'char'; readonly test: (char: string) => boolean }
  | { readonly kind: 'start' | 'end' }
  | { readonly kind: 'all' | 'any'; readonly parts: readonly Node[] }
  | { readonly kind: 'repeat'; readonly part: Node; readonly min: number; readonly max: number }

/** Steps of one pattern. */
const maxSteps = 1000
const maxDepth = 20
/** Of Postgres: DUPMAX. */
const maxRepeats = 255

/** Also letters of the other case, of patterns in ASCII under a collation that folds ASCII as C does: an ASCII letter of the
 *  pattern then stands for itself and for its other case, and for nothing else. */
export type CaseOf = 'exact' | 'either'

/** @returns what tells whether a text matches somewhere; null for a pattern that only Postgres knows */
export function regexMatcher(pattern: string, caseOf: CaseOf = 'exact'): ((text: string) => boolean) | null {
  const steps = stepsOf(pattern, caseOf)
  if (steps === null) return null
  return isShort(steps) ? bitMatcher(steps) : text => matches(steps, Array.from(text))
}

/** Whether it takes about 30 ms for each megabyte of text, whatever stands there; a long one may take seconds.
 *  @returns null for a pattern that only Postgres knows */
export function isShortRegex(pattern: string, caseOf: CaseOf = 'exact'): boolean | null {
  const steps = stepsOf(pattern, caseOf)
  return steps === null ? null : isShort(steps)
}

/** Characters that a short pattern has, each bound of a repetition counted out. */
export const maxShort = 64

const isShort = (steps: readonly Step[]): boolean => steps.filter(({ op }) => op === 'char').length <= maxShort

function stepsOf(pattern: string, caseOf: CaseOf): Step[] | null {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: all of ASCII
  if (caseOf === 'either' && !/^[\u0000-\u007f]*$/.test(pattern)) return null
  const node = new Parser(Array.from(pattern), caseOf).all()
  const steps: Step[] = []
  return node !== null && emit(node, steps) && steps.push({ op: 'match' }) <= maxSteps ? steps : null
}

/** A letter of ASCII in the other case; any other character is itself. */
const otherCase = (char: string): string =>
  /^[a-z]$/.test(char) ? char.toUpperCase() : /^[A-Z]$/.test(char) ? char.toLowerCase() : char

class Parser {
  readonly #chars: readonly string[]
  readonly #isEither: boolean
  #at = 0
  #depth = 0

  constructor(chars: readonly string[], caseOf: CaseOf) {
    this.#chars = chars
    this.#isEither = caseOf === 'either'
  }

  all(): Node | null {
    const node = this.#chars.length === 0 ? { kind: 'all' as const, parts: [] } : this.#alternatives()
    return this.#at === this.#chars.length ? node : null
  }

  #take(char: string): boolean {
    if (this.#chars[this.#at] !== char) return false
    this.#at += 1
    return true
  }

  #alternatives(): Node | null {
    const parts: Node[] = []
    do {
      const part = this.#branch()
      if (part === null) return null
      parts.push(part)
    } while (this.#take('|'))
    return parts.length === 1 ? parts[0]! : { kind: 'any', parts }
  }

  #branch(): Node | null {
    const parts: Node[] = []
    for (;;) {
      const char = this.#chars[this.#at]
      if (char === undefined || char === '|' || char === ')') break
      const part = this.#repeated()
      if (part === null) return null
      parts.push(part)
    }
    return parts.length === 0 ? null : { kind: 'all', parts }
  }

  #repeated(): Node | null {
    const part = this.#atom()
    const bounds = this.#bounds()
    if (part === null || bounds === 'wrong') return null
    if (bounds === null) return part
    // Greedy or not, a text matches alike.
    this.#take('?')
    const isAnchor = part.kind === 'start' || part.kind === 'end'
    const isRepeatedAgain = '*+?{'.includes(this.#chars[this.#at] ?? '|')
    return isAnchor || isRepeatedAgain ? null : { kind: 'repeat', part, ...bounds }
  }

  #bounds(): { min: number; max: number } | 'wrong' | null {
    if (this.#take('*')) return { min: 0, max: Number.POSITIVE_INFINITY }
    if (this.#take('+')) return { min: 1, max: Number.POSITIVE_INFINITY }
    if (this.#take('?')) return { min: 0, max: 1 }
    if (!this.#take('{')) return null
    const end = this.#chars.indexOf('}', this.#at)
    const [, least, comma, most] = /^(\d{1,3})(,?)(\d{0,3})$/.exec(this.#chars.slice(this.#at, end).join('')) ?? []
    if (end < 0 || least === undefined) return 'wrong'
    this.#at = end + 1
    const min = Number(least)
    const max = comma === '' ? min : most === '' ? Number.POSITIVE_INFINITY : Number(most)
    return min > maxRepeats || (max > maxRepeats && max !== Number.POSITIVE_INFINITY) || min > max
      ? 'wrong'
      : { min, max }
  }

  #atom(): Node | null {
    const char = this.#chars[this.#at]!
    this.#at += 1
    switch (char) {
      case '^':
        return { kind: 'start' }
      case '$':
        return { kind: 'end' }
      case '.':
        return { kind: 'char', test: () => true }
      case '(':
        return this.#group()
      case '[':
        return this.#bracket()
      case '\\':
        return this.#escaped()
      case '*':
      case '+':
      case '?':
      case '{':
      case '}':
      case ']':
      case ')':
        return null
      default:
        return this.#letter(char)
    }
  }

  #letter(char: string): Node {
    const other = this.#isEither ? otherCase(char) : char
    return { kind: 'char', test: each => each === char || each === other }
  }

  #group(): Node | null {
    if (this.#take('?') && !this.#take(':')) return null
    this.#depth += 1
    if (this.#depth > maxDepth) return null
    const inner = this.#alternatives()
    this.#depth -= 1
    return this.#take(')') ? inner : null
  }

  #escaped(): Node | null {
    const char = this.#punctuation()
    return char === null ? null : { kind: 'char', test: each => each === char }
  }

  /** What stands behind a backslash for itself. */
  #punctuation(): string | null {
    const char = this.#chars[this.#at] ?? ''
    this.#at += 1
    return /^[!-/:-@[\]^`{-~]$/.test(char) || char === '\\' ? char : null
  }

  #bracket(): Node | null {
    const isNegated = this.#take('^')
    const ranges: (readonly [from: number, to: number])[] = []
    for (let first = true; first || !this.#take(']'); first = false) {
      const from = this.#member(first)
      if (from === null) return null
      const isRange = this.#chars[this.#at] === '-' && this.#chars[this.#at + 1] !== ']'
      if (isRange) this.#at += 1
      const to = isRange ? this.#member(false) : from
      if (to === null || from > to || (isRange && this.#chars[this.#at] === '-' && this.#chars[this.#at + 1] !== ']'))
        return null
      ranges.push([from, to])
    }
    const has = (char: string): boolean => {
      const code = char.codePointAt(0)!
      return ranges.some(([from, to]) => code >= from && code <= to)
    }
    const hasEither = this.#isEither ? (char: string): boolean => has(char) || has(otherCase(char)) : has
    return { kind: 'char', test: char => hasEither(char) !== isNegated }
  }

  /** A character in brackets, as its code point. */
  #member(isFirst: boolean): number | null {
    const char = this.#chars[this.#at]
    if (char === undefined || char === '[' || (isFirst && char === ']')) return null
    this.#at += 1
    return (char === '\\' ? this.#punctuation() : char)?.codePointAt(0) ?? null
  }
}

/** @returns false when there are too many steps */
function emit(node: Node, steps: Step[]): boolean {
  if (steps.length > maxSteps) return false
  switch (node.kind) {
    case 'char':
      steps.push({ op: 'char', test: node.test })
      return true
    case 'start':
    case 'end':
      steps.push({ op: node.kind })
      return true
    case 'all':
      return node.parts.every(part => emit(part, steps))
    case 'any':
      return emitAny(node.parts, steps)
    case 'repeat':
      return emitRepeat(node, steps)
  }
}

function emitAny(parts: readonly Node[], steps: Step[]): boolean {
  const begins: number[] = []
  const ends: { to: number[] }[] = []
  const split = { op: 'split' as const, to: begins }
  steps.push(split)
  for (const part of parts) {
    begins.push(steps.length)
    if (!emit(part, steps)) return false
    const end = { op: 'split' as const, to: [] as number[] }
    ends.push(end)
    steps.push(end)
  }
  for (const end of ends) end.to.push(steps.length)
  return true
}

function emitRepeat({ part, min, max }: Extract<Node, { kind: 'repeat' }>, steps: Step[]): boolean {
  let last = 0
  for (let i = 0; i < min; i++) {
    last = steps.length
    if (!emit(part, steps)) return false
  }
  const isEndless = max === Number.POSITIVE_INFINITY
  if (isEndless && min > 0) {
    steps.push({ op: 'split', to: [last, steps.length + 1] })
    return true
  }
  const leaves: { to: number[] }[] = []
  const optional = isEndless ? 1 : max - min
  for (let i = 0; i < optional; i++) {
    const split = { op: 'split' as const, to: [steps.length + 1] }
    const at = steps.length
    steps.push(split)
    leaves.push(split)
    if (!emit(part, steps)) return false
    if (isEndless) steps.push({ op: 'split', to: [at] })
  }
  for (const leave of leaves) leave.to.push(steps.length)
  return true
}

function matches(steps: readonly Step[], text: readonly string[]): boolean {
  const seen = new Int32Array(steps.length).fill(-1)
  let threads: number[] = []
  for (let at = 0; at <= text.length; at++) {
    // A match may begin anywhere.
    const waiting = [...threads, 0]
    const next: number[] = []
    while (waiting.length > 0) {
      const place = waiting.pop()!
      if (seen[place] === at) continue
      seen[place] = at
      const step = steps[place]!
      if (step.op === 'match') return true
      if (step.op === 'split') waiting.push(...step.to)
      else if (step.op === 'char') {
        if (at < text.length && step.test(text[at]!)) next.push(place + 1)
      } else if (at === (step.op === 'start' ? 0 : text.length)) waiting.push(place + 1)
    }
    threads = next
  }
  return false
}
