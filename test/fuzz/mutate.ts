// Breaks valid inputs a little: text, JSON and bytes.
import type { Random } from '../checker/random.ts'

/** What has broken parsers before. */
export const nasty: readonly string[] = [
  '\0',
  '\ud800',
  '\udfff',
  '\u202e',
  '\ufeff',
  '\u2028',
  '%00',
  '%c3',
  '%zz',
  '%25%32%35',
  '\r\n',
  '\r\nX: y',
  "'",
  '"',
  '\\',
  ';',
  '--',
  "' OR '1'='1",
  '"; DROP TABLE things; --',
  '$1',
  '__proto__',
  'constructor',
  'toString',
  'hasOwnProperty',
  'null',
  'NaN',
  '-0',
  '1e309',
  '1e-400',
  '9007199254740993',
  '18446744073709551616',
  '-9223372036854775809',
  '0x10',
  '1_000',
  '٣',
  'İ',
  'ß',
  '😀',
  'ｍ',
  '(',
  ')',
  '{',
  '}',
  ',',
  '.',
  '~',
  '*',
  '%',
  '_',
  'x'.repeat(300),
  '('.repeat(50),
  ',,,,',
]

/** One to three changes: a piece left out, doubled, moved, or something nasty put in. */
export function mutateText(random: Random, text: string): string {
  let result = text
  for (let times = 1 + random.below(3); times > 0; times--) {
    const at = random.below(result.length + 1)
    const to = Math.min(result.length, at + 1 + random.below(8))
    const piece = result.slice(at, to)
    switch (random.below(6)) {
      case 0:
        result = result.slice(0, at) + result.slice(to)
        break
      case 1:
        result = result.slice(0, to) + piece + result.slice(to)
        break
      case 2: {
        const there = random.below(result.length + 1)
        result = result.slice(0, there) + piece + result.slice(there)
        break
      }
      case 3:
        result = result.slice(0, at) + String.fromCharCode(random.below(0x250)) + result.slice(at + 1)
        break
      case 4:
        result = result.slice(0, at) + piece.toUpperCase() + result.slice(to)
        break
      default:
        result = result.slice(0, at) + random.pick(nasty) + result.slice(random.once(2) ? at : to)
    }
  }
  return result
}

export function mutateBytes(random: Random, bytes: Buffer): Buffer {
  let result = Buffer.from(bytes)
  for (let times = 1 + random.below(4); times > 0; times--) {
    const at = random.below(result.length + 1)
    switch (random.below(4)) {
      case 0:
        if (at < result.length) result[at] = result[at]! ^ (1 << random.below(8))
        break
      case 1:
        result = Buffer.concat([result.subarray(0, at), noise(random, 1 + random.below(12)), result.subarray(at)])
        break
      case 2:
        result = Buffer.concat([result.subarray(0, at), result.subarray(at + 1 + random.below(6))])
        break
      default:
        if (at < result.length) result[at] = random.pick([0, 0x7f, 0x80, 0xff, 0x0a])
    }
  }
  return result
}

export function noise(random: Random, length: number): Buffer {
  return Buffer.from(Array.from({ length }, () => random.below(256)))
}

/** JSON text of an object, some of it not as it should be: fields missing, doubled, of other types, numbers that no double
 *  holds, names that objects have by themselves. */
export function mutateJson(random: Random, value: Readonly<Record<string, unknown>>): string {
  const fields = Object.entries(value).map(([name, field]): [string, string] => [name, JSON.stringify(field) ?? 'null'])
  for (let times = random.below(3); times > 0; times--) {
    const at = random.below(fields.length)
    const field = fields[at]
    if (field === undefined) break
    switch (random.below(6)) {
      case 0:
        fields.splice(at, 1)
        break
      case 1:
        fields.push([random.pick([field[0], '__proto__', 'constructor', 'id', 'extra']), random.pick(oddJson)])
        break
      case 2:
        fields[at] = [mutateText(random, field[0]), field[1]]
        break
      case 3:
        fields[at] = [field[0], JSON.stringify(mutateText(random, field[1]))]
        break
      default:
        fields[at] = [field[0], random.pick(oddJson)]
    }
  }
  const text = `{${fields.map(([name, field]) => `${JSON.stringify(name)}:${field}`).join(',')}}`
  return random.once(8) ? mutateText(random, text) : text
}

const oddJson: readonly string[] = [
  'null',
  'true',
  '0',
  '-0',
  '-1',
  '1.5',
  '1e309',
  '-1e309',
  '9007199254740993',
  '1e-400',
  '""',
  '"x"',
  '"\\u0000"',
  '"\\ud800"',
  '"__proto__"',
  '[]',
  '[null]',
  '[[[[[[[[]]]]]]]]',
  `${'['.repeat(2000)}${']'.repeat(2000)}`,
  '{}',
  '{"__proto__":{"x":1}}',
  '{"constructor":{"prototype":{}}}',
  '{"toString":1}',
  `"${'y'.repeat(3000)}"`,
]
