// A date or timestamp plus a constant interval.

import { datetimeMicros, isDatetimeFamily, printDatetime, shiftMicros } from './calendar.ts'
import { type Calls, type Compute, isInt } from './call.ts'

export const datetimeCalls: Calls<Compute> = {
  shifted: ([of, ...parts], type) => {
    const { family } = type
    if (of === undefined || !isDatetimeFamily(of.family) || !isDatetimeFamily(family)) return null
    if (parts.length !== 3 || !parts.every(isInt)) return null
    return (text, months, days, micros) => {
      const at = datetimeMicros(text)
      if (at === null) return text
      return printDatetime(
        family,
        shiftMicros(at, { months: Number(months), days: Number(days), micros: Number(micros) }),
      )
    }
  },
}
