import { expect, test } from 'vitest'
import { parseExactly } from './exact-json.ts'

test.each(['1.0', '1', '-0', '9007199254740993', '{"a":[1.00,1e3,{"b":"1.0"}],"c":0.1}', '"1.0"', 'null', 'true'])(
  '%s is printed as it came',
  text => {
    expect(JSON.stringify(parseExactly(text))).toBe(text)
  },
)

test('what is printed as it came anyway is a plain value', () => {
  expect(parseExactly('{"id":1,"f":0.1,"t":"a","n":null}')).toEqual({ id: 1, f: 0.1, t: 'a', n: null })
})
