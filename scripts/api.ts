// The reference of what the package exports: declarations and docstrings, as the compiler emits them, on one page for each entry of
// package.json but the server's.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { clientCodes } from '../src/protocol/client-codes.ts'
import { peerCodes, resyncCodes } from '../src/protocol/codes.ts'
import { operatorCodes } from '../src/protocol/operator-codes.ts'

const root = fileURLToPath(new URL('../', import.meta.url))

/** By the entry's name; the file that it names, below src/. */
export const entries: Readonly<Record<string, string>> = {
  client: 'client/client.ts',
  store: 'client/store/stored-queries.ts',
  react: 'react/react.ts',
  testing: 'testing/start-tidegate.ts',
}

export interface Declaration {
  readonly kind: 'function' | 'const' | 'class' | 'interface' | 'type'
  readonly name: string
  readonly doc: Doc
  /** Without `export declare`, and without private parts. */
  readonly text: string
  /** Of a class or an interface. */
  readonly members: readonly Member[]
}

export interface Member {
  /** Empty where the object itself is called. */
  readonly name: string
  readonly doc: Doc
  readonly text: string
}

export interface Doc {
  readonly text: string
  readonly tags: readonly { readonly name: string; readonly text: string }[]
}

/** @returns the text of each page by its path below docs/, and what each declares by the entry's name */
export function apiPages(): { pages: Map<string, string>; declared: Map<string, readonly Declaration[]> } {
  const folder = mkdtempSync(join(tmpdir(), 'declarations-'))
  try {
    emit(folder)
    const read = new Map<string, Emitted>()
    const pages = new Map<string, string>()
    const declared = new Map<string, readonly Declaration[]>()
    for (const [name, file] of Object.entries(entries)) {
      const declarations = exportsOf(folder, file.replace(/\.ts$/, '.d.ts'), read)
      declared.set(name, declarations)
      pages.set(`api/${name}.md`, pageOf(name, file, declarations))
    }
    return { pages, declared }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function emit(outDir: string): void {
  const config = join(outDir, 'tsconfig.json')
  const compilerOptions = {
    outDir,
    rootDir: join(root, 'src'),
    typeRoots: [join(root, 'node_modules/@types')],
    emitDeclarationOnly: true,
    noEmitOnError: false,
    sourceMap: false,
    inlineSources: false,
  }
  const files = Object.values(entries).map(file => join(root, 'src', file))
  writeFileSync(
    config,
    JSON.stringify({ extends: join(root, 'tsconfig.build.json'), compilerOptions, include: [], files }),
  )
  spawnSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', config])
}

interface Emitted {
  readonly own: ReadonlyMap<string, readonly Declaration[]>
  /** Names that the file exports, its own and others', in its order. */
  readonly exported: readonly { readonly name: string; readonly from: string | null }[]
  readonly imported: ReadonlyMap<string, string>
}

function exportsOf(folder: string, file: string, read: Map<string, Emitted>): Declaration[] {
  const { own, exported, imported } = readEmitted(folder, file, read)
  const found = exported.flatMap(({ name, from }) => {
    const there = from ?? (own.has(name) ? null : imported.get(name)) ?? null
    if (there === null) return own.get(name) ?? []
    const path = normalize(join(dirname(file), there)).replace(/\.ts$/, '.d.ts')
    return exportsOf(folder, path, read).filter(declaration => declaration.name === name)
  })
  // What one begins with first: what the file itself declares, then what it hands on, then their types.
  const isType = ({ kind }: Declaration): boolean => kind === 'interface' || kind === 'type'
  const rank = (one: Declaration): number => (isType(one) ? 2 : own.has(one.name) ? 0 : 1)
  return [...new Set(found)].sort((a, b) => rank(a) - rank(b))
}

function readEmitted(folder: string, file: string, read: Map<string, Emitted>): Emitted {
  const known = read.get(file)
  if (known !== undefined) return known
  const own = new Map<string, Declaration[]>()
  const exported: { name: string; from: string | null }[] = []
  const imported = new Map<string, string>()
  for (const { doc, text } of statementsOf(readFileSync(join(folder, file), 'utf8'))) {
    const list = /^(import|export)\s+(?:type\s+)?\{([^}]*)\}(?:\s+from\s+'(.+)')?;$/.exec(text)
    if (list !== null) {
      const [, verb, names = '', from = null] = list
      for (const name of names.split(',').map(each => each.replace(/\btype\b/, '').trim())) {
        if (name === '') continue
        if (verb === 'import') imported.set(name, from!)
        else exported.push({ name, from })
      }
      continue
    }
    const declaration = declarationOf(doc, text)
    if (declaration === null || doc.includes('@internal')) continue
    const { name } = declaration
    own.set(name, [...(own.get(name) ?? []), declaration])
    if (text.startsWith('export ') && !exported.some(known => known.name === name)) exported.push({ name, from: null })
  }
  const emitted: Emitted = { own, exported, imported }
  read.set(file, emitted)
  return emitted
}

function declarationOf(doc: string, whole: string): Declaration | null {
  const text = whole.replace(/^export\s+/, '').replace(/^declare\s+/, '')
  const [, word, name = ''] = /^(function|const|class|interface|type)\s+(\w+)/.exec(text) ?? []
  if (word === undefined) return null
  const kind = word as Declaration['kind']
  const hasMembers = kind === 'class' || kind === 'interface'
  const body = text.slice(text.indexOf(' {\n') + 3, text.lastIndexOf('\n}'))
  const members =
    hasMembers && text.includes(' {\n') ? statementsOf(body.replaceAll(/^ {4}/gm, '')).flatMap(memberOf) : []
  return { kind, name, doc: docOf(doc), text, members }
}

function memberOf({ doc, text }: Statement): Member[] {
  if (/^(#private|private |constructor\()/.test(text)) return []
  const name = /^(?:readonly |get |static |override )*(\w*|\[[\w.]+\])/.exec(text)![1]!
  return [{ name, doc: docOf(doc), text }]
}

interface Statement {
  readonly doc: string
  readonly text: string
}

/** What the compiler emits has one statement behind the other, each with its docstring before it. */
function statementsOf(source: string): Statement[] {
  const statements: Statement[] = []
  let doc = ''
  let text = ''
  let isInDoc = false
  for (const line of source.split('\n')) {
    if (isInDoc || (text === '' && line.startsWith('/**'))) {
      doc = isInDoc ? `${doc}\n${line}` : line
      isInDoc = !line.includes('*/')
      continue
    }
    if (text === '' && line.trim() === '') continue
    text = text === '' ? line : `${text}\n${line}`
    if (!isWhole(text)) continue
    statements.push({ doc, text })
    doc = ''
    text = ''
  }
  return statements
}

function isWhole(text: string): boolean {
  const bare = text.replaceAll(/\/\*[\s\S]*?\*\//g, '').replaceAll(/'[^'\n]*'/g, "''")
  const depth = [...bare].reduce((sum, each) => sum + ('{(['.includes(each) ? 1 : '})]'.includes(each) ? -1 : 0), 0)
  const isBlock = /^(export )?(declare )?((abstract )?class|interface) /.test(bare)
  return depth === 0 && (isBlock ? /\}$/.test(bare) : /;$/.test(bare))
}

function docOf(comment: string): Doc {
  const text = comment
    .replace(/^\/\*\*\s?/, '')
    .replace(/\s*\*\/$/, '')
    .replaceAll(/\n\s*\* ?/g, '\n')
  const [first = '', ...rest] = text.split(/(?:^|\s)@(?=(?:param|typeParam|returns|throws|example)\b)/)
  const tags = rest.map(tag => {
    const [, name = '', of = ''] = /^(\w+)\s*([\s\S]*)$/.exec(tag)!
    return { name, text: name === 'example' ? of.replaceAll(/^ /gm, '') : joined(of) }
  })
  return { text: joined(first), tags }
}

const joined = (text: string): string =>
  text
    .split('\n')
    .map(line => line.trim())
    .join('\n')
    .trim()

function pageOf(name: string, file: string, declarations: readonly Declaration[]): string {
  const lines = [
    `# tidegate/${name}`,
    '',
    ...introductionOf(file),
    'This page is written by `npm run docs` from the declarations and docstrings in the source.',
    '',
    ...declarations.flatMap(sectionOf),
  ]
  return `${lines.join('\n').trimEnd()}\n`
}

/** The first comment of the file: prose, and code that is set off by two more spaces. */
function introductionOf(file: string): string[] {
  const source = readFileSync(join(root, 'src', file), 'utf8').replace(/^'use client'\n/, '')
  const comment = /^(\/\/.*\n)+/.exec(source)?.[0] ?? ''
  const lines = comment
    .trimEnd()
    .split('\n')
    .map(line => line.replace(/^\/\/ ?/, ''))
  const paragraphs = lines.join('\n').split(/\n\s*\n/)
  return paragraphs.flatMap(paragraph =>
    /^ {2}/.test(paragraph) ? ['```ts', paragraph.replaceAll(/^ {2}/gm, ''), '```', ''] : [paragraph, ''],
  )
}

function sectionOf(declaration: Declaration): string[] {
  const { kind, name, doc, text, members } = declaration
  const head = members.length > 0 ? `${text.slice(0, text.indexOf(' {\n'))}` : text
  const lines = [`## ${name}`, '', '```ts', head.replace(/;$/, ''), '```', '', ...proseOf(doc)]
  if (members.length === 0) return lines
  if (kind === 'interface' && members.every(({ text }) => !text.includes('(') || text.includes('=>')))
    return [...lines, ...fieldsOf(members), '']
  return [...lines, ...groupsOf(members).flatMap(group => memberSection(name, group))]
}

/** The overloads of a method together. */
function groupsOf(members: readonly Member[]): Member[][] {
  const groups: Member[][] = []
  for (const member of members) {
    if (groups.at(-1)?.[0]?.name === member.name) groups.at(-1)!.push(member)
    else groups.push([member])
  }
  return groups
}

function memberSection(owner: string, group: readonly Member[]): string[] {
  const [{ name }] = group as [Member]
  const title = name === '' ? `${owner}(...)` : name.startsWith('[') ? `${owner}${name}` : `${owner}.${name}`
  const signatures = group.map(({ text }) => text.replace(/;$/, ''))
  return [`### ${title}`, '', '```ts', ...signatures, '```', '', ...group.flatMap(({ doc }) => proseOf(doc))]
}

const fieldsOf = (members: readonly Member[]): string[] =>
  members.map(({ text, doc }) => {
    const signature = text
      .replace(/;$/, '')
      .replace(/^readonly /, '')
      .replaceAll(/\s*\n\s*/g, ' ')
    return `- \`${signature}\`${doc.text === '' ? '' : `: ${linked(doc.text).replaceAll('\n', '\n  ')}`}`
  })

const labels: Readonly<Record<string, string>> = { returns: 'Returns', throws: 'Throws' }

function proseOf({ text, tags }: Doc): string[] {
  const items = tags
    .filter(({ name }) => name !== 'example')
    .map(tag => {
      if (tag.name in labels) return `- ${labels[tag.name]}: ${linked(tag.text).replaceAll('\n', '\n  ')}`
      const [, name = '', of = ''] = /^(\S+)\s*([\s\S]*)$/.exec(tag.text)!
      return `- \`${name}\`: ${linked(of).replaceAll('\n', '\n  ')}`
    })
  const examples = tags.filter(({ name }) => name === 'example').flatMap(tag => ['```ts', tag.text.trim(), '```', ''])
  return [...(text === '' ? [] : [linked(text), '']), ...(items.length === 0 ? [] : [...items, '']), ...examples]
}

const codes = { ...clientCodes, ...peerCodes, ...resyncCodes, ...operatorCodes }

/** Codes lead to what they mean. */
const linked = (text: string): string =>
  text.replaceAll(/(?<![`\w])[A-Z]+(?:_[A-Z]+)+(?![`\w])/g, word =>
    word in codes ? `[\`${word}\`](../errors.md)` : word,
  )
