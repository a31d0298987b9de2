// The parts of a judgement that do not look at what is judged: AND, OR, and the time.
import type { Expr, Memberships, Row, Truth } from './algebra.ts'
import { isDatetimeFamily, printDatetime, shiftMicros } from './calendar.ts'

/** undefined: the row version does not say. */
export type Answer = Truth | undefined

export type Judging = (row: Row, memberships: Memberships) => Answer

export type Value = string | null | undefined

export type Valuing = (row: Row, memberships: Memberships) => Value

export function allOf(args: readonly Judging[]): Judging {
  return (row, memberships) => {
    let result: Answer = true
    for (const arg of args) {
      const answer = arg(row, memberships)
      if (answer === false) return false
      if (answer === undefined || (answer === null && result === true)) result = answer
    }
    return result
  }
}

export function anyOf(args: readonly Judging[]): Judging {
  return (row, memberships) => {
    let result: Answer = false
    for (const arg of args) {
      const answer = arg(row, memberships)
      if (answer === true) return true
      if (answer === undefined || (answer === null && result === false)) result = answer
    }
    return result
  }
}

/** A comparison with NULL is unknown whatever the other side is. */
export const missing = (a: Value, b: Value): null | undefined => (a === null || b === null ? null : undefined)

/** The same text for all rows judged at one position. */
export function nowValuing({ shift, type }: Extract<Expr, { kind: 'now' }>): Valuing {
  const { family } = type
  if (!isDatetimeFamily(family)) throw new Error(`now() as ${type.name}`)
  const print = (micros: bigint): string => printDatetime(family, shiftMicros(micros, shift))
  let of = 0n
  let text = print(of)
  return (_, { nowMicros }) => {
    if (nowMicros !== of) {
      of = nowMicros
      text = print(of)
    }
    return text
  }
}
