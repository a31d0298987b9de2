// What differs between two versions of a row, told from the JSON text that was made of them.

let last: { readonly old: string; readonly next: string; readonly set: string } | null = null

/** The members of `next` that are not as in `old`. Both are objects with the same names in the same order. Many audiences ask the
 *  same in a row. */
export function setOf(old: string, next: string): string {
  if (old === next) return '{}'
  if (last?.old === old && last.next === next) return last.set
  const before = membersOf(old)
  const set = `{${membersOf(next)
    .filter((member, place) => member !== before[place])
    .join(',')}}`
  last = { old, next, set }
  return set
}

/** `"name":value` of each member. @param json an object's text, without spaces between its members */
function membersOf(json: string): string[] {
  const members: string[] = []
  let from = 1
  let depth = 0
  for (let at = 1; at < json.length - 1; at++) {
    const code = json.charCodeAt(at)
    if (code === quote) at = endOfString(json, at)
    else if (code === openBrace || code === openBracket) depth++
    else if (code === closeBrace || code === closeBracket) depth--
    else if (code === comma && depth === 0) {
      members.push(json.slice(from, at))
      from = at + 1
    }
  }
  if (from < json.length - 1) members.push(json.slice(from, -1))
  return members
}

const [quote, comma, openBrace, closeBrace, openBracket, closeBracket] = [0x22, 0x2c, 0x7b, 0x7d, 0x5b, 0x5d]
const backslash = 0x5c

/** Where the string ends that begins at `from`. */
function endOfString(json: string, from: number): number {
  let at = from + 1
  while (json.charCodeAt(at) !== quote) at += json.charCodeAt(at) === backslash ? 2 : 1
  return at
}
