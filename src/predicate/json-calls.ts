// Functions and operators over json and jsonb.
import type { SqlType } from './algebra.ts'
import { arrayContains } from './array-calls.ts'
import { parseArray, printArray } from './array-text.ts'
import { type Calls, type Compute, type ComputeWithNulls, isText, type Maker, printBool } from './call.ts'
import { jsonAt, jsonContent, jsonElements, jsonKind, jsonMembers } from './json-text.ts'
import { numericKey, readNumeric } from './numeric-text.ts'
import { baseOf } from './sql-types.ts'
import { ValueError } from './value-error.ts'

export const jsonCalls: Calls<Compute> = {
  '@>': types => (types.every(isJsonb) && types.length === 2 ? contains() : arrayContains(types)),
  '?': ([document, key]) =>
    isJsonb(document) && isText(key) ? (text, name) => printBool(jsonNames(text).includes(name)) : null,
  '?|': ([document, keys]) =>
    isJsonb(document) && isTexts(keys) ? (text, names) => printBool(anyKey(text, names)) : null,
  '?&': ([document, keys]) =>
    isJsonb(document) && isTexts(keys) ? (text, names) => printBool(everyKey(text, names)) : null,
  '#>': paths(false),
  '#>>': paths(true),
  jsonb_array_length: ([type]) =>
    isJson(type)
      ? text => {
          if (jsonKind(text) !== 'array') throw new ValueError('the length of a json that is no array')
          return String(jsonElements(text).length)
        }
      : null,
  jsonb_typeof: ([type]) => (isJson(type) ? jsonKind : null),
  to_jsonb: ([type]) => toJsonb(type),
}

export const jsonCallsWithNulls: Calls<ComputeWithNulls> = {
  jsonElements: ([type]) => (isJson(type) ? text => elementsOrNone(text, false) : null),
  jsonTexts: ([type]) => (isJson(type) ? text => elementsOrNone(text, true) : null),
  jsonKeys: ([type]) =>
    isJsonb(type)
      ? text => {
          if (text === null) return '{}'
          if (jsonKind(text) !== 'object') throw new ValueError('the keys of a json that is no object')
          return printArray(jsonMembers(text).map(([name]) => name))
        }
      : null,
}

const isJsonb = (type: SqlType | undefined): boolean => type?.family === 'jsonb'

const isJson = (type: SqlType | undefined): boolean => isJsonb(type) || type?.family === 'json'

const isTexts = (type: SqlType | undefined): boolean =>
  type?.family === 'array' && type.element !== undefined && isText(baseOf(type.element))

/** A set of NULL is empty, not NULL. */
function elementsOrNone(text: string | null, asText: boolean): string {
  if (text === null) return '{}'
  if (jsonKind(text) !== 'array') throw new ValueError('the elements of a json that is no array')
  const items = jsonElements(text)
  return printArray(asText ? items.map(jsonContent) : items)
}

/** What `?` looks among: the names of an object, the strings of an array, a string itself. */
export function jsonNames(text: string): readonly string[] {
  const kind = jsonKind(text)
  if (kind === 'object') return jsonMembers(text).map(([name]) => name)
  const items = kind === 'array' ? jsonElements(text) : [text]
  return items.filter(item => item.trimStart().startsWith('"')).map(item => String(JSON.parse(item)))
}

function anyKey(text: string, names: string): boolean {
  const keys = jsonNames(text)
  return parseArray(names).items.some(name => name !== null && keys.includes(name))
}

function everyKey(text: string, names: string): boolean {
  const keys = jsonNames(text)
  return parseArray(names).items.every(name => name === null || keys.includes(name))
}

function paths(asText: boolean): Maker<Compute> {
  return ([document, path]) =>
    isJson(document) && isTexts(path) ? (text, steps) => jsonAt(text, parseArray(steps).items, { asText }) : null
}

function toJsonb(type: SqlType | undefined): Compute | null {
  switch (type?.family) {
    case 'bool':
      return text => (text === 't' ? 'true' : 'false')
    case 'int':
      return text => text
    case 'numeric':
      return text => (/[Ny]$/.test(text) ? JSON.stringify(text) : text)
    case 'text':
    case 'uuid':
    case 'enum':
      return text => JSON.stringify(text)
    case 'jsonb':
      return text => text
    default:
      return null
  }
}

type Tree =
  | { readonly kind: 'object'; readonly members: ReadonlyMap<string, Tree> }
  | { readonly kind: 'array'; readonly items: readonly Tree[]; readonly scalars: ReadonlySet<string> }
  /** Equal scalars have equal keys. */
  | { readonly kind: 'scalar'; readonly key: string }

/** jsonb `@>`. At the top, and only there, an array contains a scalar that is among its items. */
function contains(): Compute {
  const [wholeOf, partOf] = [treeOfLast(), treeOfLast()]
  return (wholeText, partText) => {
    const [whole, part] = [wholeOf(wholeText), partOf(partText)]
    if (whole.kind === 'array' && part.kind === 'scalar') return printBool(whole.scalars.has(part.key))
    return printBool(holds(whole, part))
  }
}

/** One side is a claim as a rule, the same for every row. */
function treeOfLast(): (text: string) => Tree {
  let last: string | null = null
  let tree: Tree = { kind: 'scalar', key: '' }
  return text => {
    if (text !== last) {
      tree = treeOf(text)
      last = text
    }
    return tree
  }
}

function treeOf(text: string): Tree {
  const kind = jsonKind(text)
  if (kind === 'object') {
    return { kind, members: new Map(jsonMembers(text).map(([name, value]) => [name, treeOf(value)])) }
  }
  if (kind === 'array') {
    const items = jsonElements(text).map(treeOf)
    return { kind, items, scalars: new Set(items.flatMap(item => (item.kind === 'scalar' ? [item.key] : []))) }
  }
  const trimmed = text.trim()
  if (kind === 'number') return { kind: 'scalar', key: `n${numericKey(readNumeric(trimmed))}` }
  return { kind: 'scalar', key: kind === 'string' ? `s${String(JSON.parse(trimmed))}` : trimmed }
}

function holds(whole: Tree, part: Tree): boolean {
  if (part.kind === 'scalar') return whole.kind === 'scalar' && whole.key === part.key
  if (part.kind === 'object') {
    if (whole.kind !== 'object') return false
    for (const [name, value] of part.members) {
      const found = whole.members.get(name)
      if (found === undefined || !holds(found, value)) return false
    }
    return true
  }
  if (whole.kind !== 'array') return false
  return part.items.every(item =>
    item.kind === 'scalar'
      ? whole.scalars.has(item.key)
      : whole.items.some(each => each.kind === item.kind && holds(each, item)),
  )
}
