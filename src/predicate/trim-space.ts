// White space as Postgres's input functions skip it.

/** Without leading and trailing ASCII white space. `String.trim` takes a no-break space too, which Postgres does not; a
 *  regular expression would take quadratic time on a long run of spaces. */
export function trimSpace(text: string): string {
  let start = 0
  let end = text.length
  while (start < end && isSpace(text.charCodeAt(start))) start++
  while (end > start && isSpace(text.charCodeAt(end - 1))) end--
  return text.slice(start, end)
}

const isSpace = (unit: number): boolean => unit === 32 || (unit >= 9 && unit <= 13)
