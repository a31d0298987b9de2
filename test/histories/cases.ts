// Histories as files: each is a defect that there was once, made small, and is played again with every test run.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { History } from './history.ts'

const folder = fileURLToPath(new URL('cases/', import.meta.url))

export const caseNames = (): string[] =>
  readdirSync(folder)
    .filter(name => name.endsWith('.json'))
    .map(name => name.slice(0, -'.json'.length))

/** @param path of a file, or the name of a case */
export const readCase = (path: string): History =>
  JSON.parse(readFileSync(path.endsWith('.json') ? path : join(folder, `${path}.json`), 'utf8')) as History

/** @returns the file's path */
export function writeCase(name: string, history: History): string {
  const path = join(folder, `${name}.json`)
  writeFileSync(path, textOf(history))
  return path
}

/** JSON with short lists and objects on one line each, as the formatter leaves it. */
export function textOf(value: unknown, indent = ''): string {
  const flat = JSON.stringify(value, null, 1).replaceAll(/\n */g, ' ').replaceAll('[ ', '[').replaceAll(' ]', ']')
  if (typeof value !== 'object' || value === null || indent.length + flat.length <= 110) return flat
  const deeper = `${indent}  `
  const [open, close] = Array.isArray(value) ? '[]' : '{}'
  const items = Array.isArray(value)
    ? value.map(item => textOf(item, deeper))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${textOf(item, deeper)}`)
  const end = indent === '' ? '\n' : ''
  return `${open}\n${items.map(item => deeper + item).join(',\n')}\n${indent}${close}${end}`
}
