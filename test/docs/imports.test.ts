import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

/** Who may import whom: a part, and the parts right below it. What those may import, it may too. */
const below: Record<string, string[]> = {
  protocol: [],
  predicate: ['protocol'],
  // What a node counts: whoever does the work adds to it.
  'server/figures': ['protocol'],
  'server/basics': ['server/figures'],
  'server/nodes': ['server/basics'],
  'server/wal': ['server/basics'],
  'server/decode': ['server/wal', 'predicate'],
  // The memory relay holds commits as they were decoded, so that nothing is decoded twice.
  'server/relay': ['server/decode'],
  'server/catalog': ['server/decode'],
  'server/admin': ['server/catalog'],
  'server/authorize': ['server/catalog'],
  'server/snapshot': ['server/authorize', 'server/relay'],
  'server/route': ['server/authorize', 'server/relay'],
  'server/ask': ['server/snapshot', 'server/route'],
  'server/subscribe': ['server/ask'],
  'server/channels': ['server/subscribe', 'server/nodes'],
  'server/orders': ['server/subscribe'],
  'server/deliver': ['server/channels', 'server/orders'],
  'server/explain': ['server/subscribe', 'server/admin'],
  'server/operator': ['server/deliver'],
  'server/metrics': ['server/operator'],
  'server/inspect': ['server/operator', 'server/explain'],
  'server/tracing': ['server/nodes'],
  'server/doctor': ['server/explain', 'server/nodes'],
  'server/top': ['server/metrics', 'server/inspect', 'server/tracing', 'server/doctor'],
  client: ['protocol'],
  react: ['client'],
  cli: ['server/top', 'client'],
  testing: ['cli'],
}

const source = fileURLToPath(new URL('../../src/', import.meta.url))
const files = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter(path => path.endsWith('.ts'))
const importLine = /^(?:import|export)\s(?:[^'";]*?\sfrom\s)?'(\.[^']+)'|\bimport\('(\.[^']+)'\)/gm

/** The imports of a file, types included: they too say who knows whom. */
const importsOf = (file: string): string[] =>
  [...readFileSync(join(source, file), 'utf8').matchAll(importLine)].map(match =>
    normalize(join(dirname(file), match[1] ?? match[2]!)),
  )

function partOf(file: string): string {
  const [first = '', second = ''] = file.split('/')
  if (first !== 'server') return first
  // Whatever anybody may use, and what puts the parts together.
  if (/^(config|log|postgres|redis|steady-clock\.ts)$/.test(second)) return 'server/basics'
  return /^(setup|upkeep|process|(pipeline|server|server-end)\.ts)$/.test(second) ? 'server/top' : `server/${second}`
}

const reach = (part: string): Set<string> => new Set([part, ...(below[part] ?? []).flatMap(next => [...reach(next)])])

test('every import leads to a file', () => {
  expect(files.flatMap(importsOf).filter(target => !files.includes(target))).toEqual([])
})

test.each(files)('%s imports only what lies upstream', file => {
  expect(below).toHaveProperty([partOf(file)])
  const allowed = reach(partOf(file))
  expect(importsOf(file).filter(target => !allowed.has(partOf(target)))).toEqual([])
})

test('no file imports itself through others', () => {
  const finished = new Set<string>()
  const visit = (file: string, path: string[]): string[] => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file]
    if (finished.has(file)) return []
    for (const target of importsOf(file).filter(target => files.includes(target))) {
      const cycle = visit(target, [...path, file])
      if (cycle.length > 0) return cycle
    }
    finished.add(file)
    return []
  }
  for (const file of files) expect(visit(file, [])).toEqual([])
})

test('the reader of import lines sees them', () => {
  expect(importsOf('server/config/config.ts')).toContain('protocol/tidegate-error.ts')
  expect(importsOf('cli/main.ts')).toContain('cli/commands/token.ts')
  expect(reach('server/wal').has('predicate')).toBe(false)
})
