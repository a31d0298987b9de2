// What the pages show in TypeScript compiles, and what they show of other libraries parses.
import { execFile } from 'node:child_process'
import { globSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { type Block, linkPackage, readBlocks } from './guide-page.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const pages = globSync(['guide/*.md', 'migrate/*.md', 'quickstart.md', '../README.md'], { cwd: `${root}docs` }).map(
  path => path.replace(/\.md$/, ''),
)
/** Of a page in a flat folder. */
const fileOf = (page: string): string => `page-${page.replaceAll(/\W+/g, '-')}`

/** What the reader has already, or writes as they like. */
const given = `
  declare const anaToken: string, benToken: string
  declare function fetchToken(): Promise<string>
  declare function render(rows: unknown): void
  declare function notify(row: unknown): void
  declare function reload(why: string): void
`

const isTyped = ({ language, says }: Block): boolean => /^tsx?$/.test(language) && says !== 'theirs'

const importLine = /^import \{ (.*) \} from '(.*)'$/gm

/** All blocks as one module. One that only compiles has names of its own. */
function moduleOf(blocks: readonly Block[]): string {
  const imported = new Map<string, Set<string>>()
  const parts = blocks.map(({ says, text }) => {
    for (const [, names = '', from = ''] of text.matchAll(importLine))
      imported.set(from, new Set([...(imported.get(from) ?? []), ...names.split(', ')]))
    const rest = text.replace(importLine, '')
    return says === '' ? rest : `;async () => {\n${rest}\n}`
  })
  const imports = [...imported].map(([from, names]) => `import { ${[...names].join(', ')} } from '${from}'`)
  return [...imports, given, ...parts, 'export {}'].join('\n')
}

test('every block of TypeScript compiles', { timeout: 120_000 }, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'pages-'))
  try {
    await linkPackage(folder, ['pg', 'react', 'react-dom', '@types', 'vitest'])
    let count = 0
    for (const page of pages) {
      const blocks = (await readBlocks(page)).filter(isTyped)
      count += blocks.length
      const extension = blocks.some(({ language }) => language === 'tsx') ? 'tsx' : 'mts'
      if (blocks.length > 0) await writeFile(join(folder, `${fileOf(page)}.${extension}`), moduleOf(blocks))
    }
    expect(count).toBeGreaterThan(40)
    const compilerOptions = {
      allowImportingTsExtensions: true,
      noEmit: true,
      noUnusedLocals: false,
      types: ['node'],
      jsx: 'react-jsx',
      rootDir: '/',
      // The sources are compiled as their own settings have it.
      skipLibCheck: true,
    }
    await writeFile(join(folder, 'package.json'), '{ "type": "module" }')
    await writeFile(
      join(folder, 'tsconfig.json'),
      JSON.stringify({ extends: `${root}tsconfig.json`, compilerOptions, include: ['*.mts', '*.tsx'] }),
    )
    const compiler = join(root, 'node_modules/typescript/bin/tsc')
    const { stdout } = await promisify(execFile)(process.execPath, [compiler, '-p', folder]).catch(error => error)
    const ofPages = (stdout as string).split('\n').filter(line => /^(\S*\/)?page-/.test(line))
    expect(ofPages).toEqual([])
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})

test('every block of another library parses', async () => {
  for (const page of pages) {
    const blocks = (await readBlocks(page)).filter(({ says }) => says === 'theirs')
    for (const { text, language, line } of blocks) {
      expect([page, line, language]).toEqual([page, line, 'js'])
      const imports = text.replace(/^import .*$/gm, '')
      expect(() => new Function(`return async () => {\n${imports}\n}`), `docs/${page}.md, line ${line}`).not.toThrow()
    }
  }
})

test('every block is of a kind that some test looks at', async () => {
  const kinds = /^(sql|sh|js|ts|tsx|text|text unordered|json channels|ts checked|js theirs|nginx|caddyfile|yaml)$/
  const others = (await Promise.all(pages.map(readBlocks)))
    .flat()
    .filter(block => !kinds.test(`${block.language} ${block.says}`.trim()))
  // What a rule looks like where there is none, and a package that this repository has.
  expect(others.map(({ text }) => text.trim())).toEqual(['npm install --save-dev testcontainers'])
})
