// A page of the guide, run: its blocks one after the other, as a reader would, in one database and on one node.
//   ```sql            runs as the tables' owner
//   ```sh             runs in bash
//   ```js and ```ts   run in Node; all of a page are one program, which waits between them for what stands between them;
//                     `tidegate/client` and the others are the sources
//   ```ts checked     only compiles, as what needs a browser; so do all others, see pages-compile.test.ts
//   ```tsx            all of a page are one program of React, opened in Chromium behind the last; ```text is then what it shows
//   ```js theirs      is of another library, and only parsed
//   ```json channels  is what the node is started with
//   ```text           is what was printed since the last such block, line by line; `...` stands for any text
//   ```text unordered the same in any order
// A page of a gateway has its files too: ```nginx, ```caddyfile and ```yaml, see test/deploy/supabase-gateways.ts.
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { inject } from 'vitest'
import { jwtSecret, prepareDatabase, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { compiled } from '../support/run-cli.ts'
import { openReactPage, type ReactPage } from './react-page.ts'

export interface Block {
  readonly language: string
  readonly says: string
  readonly text: string
  readonly line: number
}

const root = fileURLToPath(new URL('../../', import.meta.url))
export const users = {
  ana: '00000000-0000-4000-8000-00000000000a',
  ben: '00000000-0000-4000-8000-00000000000b',
}

/** @param page below docs/: `guide/broadcast` */
export async function readBlocks(page: string): Promise<Block[]> {
  const text = await readFile(`${root}docs/${page}.md`, 'utf8')
  return [...text.matchAll(/^```(\w*) ?(.*)\n([\s\S]*?)^```$/gm)].map(match => ({
    language: match[1]!,
    says: match[2]!,
    text: match[3]!,
    line: text.slice(0, match.index).split('\n').length,
  }))
}

/** For what is printed or shown: of what hangs, not of what is slow. */
const waitMs = 40_000

/** What is printed, a line at a time, and waited for. */
export class Printed {
  #lines: string[] = []
  #wake = (): void => {}

  /** Takes what one program prints. @returns ends its last line, if it did not */
  from(stream: NodeJS.ReadableStream): () => void {
    let rest = ''
    const add = (text: string): void => {
      const lines = (rest + text).split('\n')
      rest = lines.pop()!
      this.#lines.push(...lines)
      this.#wake()
    }
    stream.setEncoding('utf8').on('data', add)
    return () => {
      if (rest !== '') add('\n')
    }
  }

  /** Takes the next lines. @throws when they are others, or do not come */
  async take(expected: readonly string[], isOrdered: boolean): Promise<void> {
    const deadline = Date.now() + waitMs
    while (this.#lines.length < expected.length && Date.now() < deadline)
      await Promise.race([
        new Promise<void>(resolve => (this.#wake = resolve)),
        new Promise(end => setTimeout(end, 200)),
      ])
    const lines = this.#lines.splice(0, expected.length)
    const left = [...lines]
    for (const wanted of expected) {
      const at = isOrdered ? 0 : left.findIndex(line => fits(line, wanted))
      if (at < 0 || left[at] === undefined || !fits(left[at], wanted))
        throw new Error(`expected:\n${expected.join('\n')}\nbut it printed:\n${[...lines, ...this.#lines].join('\n')}`)
      left.splice(at, 1)
    }
  }

  /** @throws when something is left that no block expects */
  end(): void {
    if (this.#lines.length > 0) throw new Error(`it also printed:\n${this.#lines.join('\n')}`)
  }
}

const fits = (line: string, wanted: string): boolean =>
  new RegExp(
    `^${wanted
      .split('...')
      .map(part => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
      .join('.*')}$`,
  ).test(line)

/** The page's program, which goes on block by block. */
export class Program implements AsyncDisposable {
  readonly #child: ChildProcess
  #failure: Error | null = null
  #step = Promise.withResolvers<void>()

  constructor(path: string, env: Record<string, string>, printed: Printed) {
    this.#child = spawn(process.execPath, [path], { env, stdio: ['ignore', 'pipe', 'pipe', 'ipc'] })
    printed.from(this.#child.stdout!)
    let errors = ''
    this.#child.stderr!.setEncoding('utf8').on('data', text => {
      errors += text
    })
    this.#child.on('message', () => this.#step.resolve())
    this.#child.on('exit', code => {
      this.#failure = new Error(`the program ended with ${code}:\n${errors}`)
      this.#step.reject(this.#failure)
    })
    this.#step.promise.catch(() => {})
  }

  /** Runs the next block to its end. @throws what it throws */
  async next(): Promise<void> {
    if (this.#failure !== null) throw this.#failure
    this.#step = Promise.withResolvers()
    this.#child.send('go')
    await this.#step.promise
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#failure !== null) return
    this.#step.promise.catch(() => {})
    const gone = new Promise(resolve => this.#child.once('exit', resolve))
    this.#child.kill()
    await gone
  }
}

export const isRun = ({ language, says }: Block): boolean => (language === 'js' || language === 'ts') && says === ''

export const programOf = (blocks: readonly Block[], port: number): string =>
  [
    'const { ANA_TOKEN: anaToken, BEN_TOKEN: benToken } = process.env',
    // It is killed in the end: what it was compiled to would not be kept.
    "process.getBuiltinModule('node:module').flushCompileCache()",
    "const nextBlock = () => new Promise(go => process.once('message', go))",
    ...blocks.map(({ text }) => `await nextBlock()\n${atPort(text, port)}\nprocess.send('done')`),
    'await nextBlock()',
  ].join('\n')

/** Lets what is in a folder import this repository's sources as the package `tidegate`, and some packages that it uses. Linked from outside of
 *  `node_modules`, where Node strips no types. */
export async function linkPackage(folder: string, packages: readonly string[] = []): Promise<void> {
  const { exports: built } = JSON.parse(await readFile(`${root}package.json`, 'utf8')) as {
    exports: Record<string, { default: string } | string>
  }
  const entries = Object.entries(built).flatMap(([name, entry]) =>
    typeof entry === 'string'
      ? []
      : [[name, entry.default.replace('./dist/', './src/').replace(/\.js$/, '.ts')] as const],
  )
  const linked = join(folder, 'tidegate-sources')
  await mkdir(linked)
  await writeFile(
    join(linked, 'package.json'),
    JSON.stringify({ type: 'module', exports: Object.fromEntries(entries) }),
  )
  await mkdir(join(folder, 'node_modules'))
  await symlink(join(root, 'src'), join(linked, 'src'))
  await symlink(linked, join(folder, 'node_modules/tidegate'))
  for (const name of packages) {
    await mkdir(dirname(join(folder, 'node_modules', name)), { recursive: true })
    await symlink(join(root, 'node_modules', name), join(folder, 'node_modules', name))
  }
}

const atPort = (text: string, port: number): string => text.replaceAll('localhost:4000', `127.0.0.1:${port}`)

function inBash(script: string, env: Record<string, string>, printed: Printed): Promise<void> {
  const child = spawn('bash', ['-euo', 'pipefail', '-c', script], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const endLine = printed.from(child.stdout)
  let errors = ''
  child.stderr.setEncoding('utf8').on('data', text => {
    errors += text
  })
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', code => {
      endLine()
      if (code === 0) resolve()
      else reject(new Error(`bash ended with ${code}:\n${errors}`))
    })
  })
}

const appOf = (blocks: readonly Block[], { ANA_TOKEN, BEN_TOKEN }: Readonly<Record<string, string>>): string =>
  [`const anaToken = '${ANA_TOKEN}', benToken = '${BEN_TOKEN}'`, ...blocks.map(({ text }) => text)].join('\n')

/** @throws when the page does not come to show these lines */
async function show(page: ReactPage, expected: readonly string[]): Promise<void> {
  const wanted = expected.join('\n')
  const deadline = Date.now() + waitMs
  for (;;) {
    const shown = (await page.lines()).join('\n')
    if (shown === wanted) return
    if (Date.now() > deadline) throw new Error(`expected:\n${wanted}\nbut it shows:\n${shown}`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

/** What `tidegate` and `node` are in the shell of a page's reader, and where the database is. */
async function shellOf(database: TestDatabase, folder: string): Promise<Record<string, string>> {
  await writeFile(
    join(folder, 'tidegate'),
    `#!/bin/sh\nexec '${process.execPath}' '${root}src/cli/main.ts' "$@" >/dev/null\n`,
    {
      mode: 0o755,
    },
  )
  await symlink(process.execPath, join(folder, 'node'))
  return {
    PATH: `${folder}:${process.env.PATH ?? ''}`,
    NODE_NO_WARNINGS: '1',
    ...compiled,
    DATABASE_URL: database.url,
    JWT_SECRET: jwtSecret,
    ANA_TOKEN: await tokenFor(users.ana),
    BEN_TOKEN: await tokenFor(users.ben),
  }
}

const worlds = new Map<string, Promise<TestDatabase>>()

/** A database that is as the first blocks of a page leave it, up to its first program, and that nobody is connected to: those of other pages
 *  are copies of it. */
function worldOf(page: string): Promise<TestDatabase> {
  const known = worlds.get(page)
  if (known !== undefined) return known
  const made = (async () => {
    const database = await emptyDatabase()
    const folder = await mkdtemp(join(tmpdir(), 'guide-'))
    const env = await shellOf(database, folder)
    const blocks = await readBlocks(page)
    for (const { language, text } of blocks.slice(0, blocks.findIndex(isRun)))
      if (language === 'sql') await database.query(text)
      else if (language === 'sh') await inBash(text, env, new Printed())
    await rm(folder, { recursive: true })
    await database.client.end()
    return database
  })()
  worlds.set(page, made)
  return made
}

/** To be called when all pages have run. */
export async function dropWorlds(): Promise<void> {
  for (const world of worlds.values()) await (await TestDatabase.connect(await world))[Symbol.asyncDispose]()
  worlds.clear()
}

async function copyOf(page: string): Promise<TestDatabase> {
  const { name } = await worldOf(page)
  return TestDatabase.create(inject('databaseUrl'), `TEMPLATE ${name}`)
}

async function emptyDatabase(): Promise<TestDatabase> {
  const database = await TestDatabase.create()
  await prepareDatabase(database, '', [])
  return database
}

/** @param base a page whose first blocks, up to its first program, are the world of this one
 *  @throws with the line of the block that does not do what the page says */
export async function runPage(page: string, base: string | null): Promise<void> {
  const blocks = await readBlocks(page)
  const channels = blocks.find(({ language, says }) => language === 'json' && says === 'channels')

  await using stack = new AsyncDisposableStack()
  const database = stack.use(await (base === null ? emptyDatabase() : copyOf(base)))
  const node = stack.use(
    await TestNode.start(database.url, {
      ALLOWED_ORIGINS: '*',
      ...(channels === undefined ? {} : { CHANNELS: channels.text }),
    }),
  )
  const { port } = node.server
  const folder = await mkdtemp(join(tmpdir(), 'guide-'))
  stack.defer(() => rm(folder, { recursive: true }))
  const env = await shellOf(database, folder)
  const printed = new Printed()
  await linkPackage(folder, ['pg', 'react', 'react-dom'])
  const script = join(folder, 'page.mts')
  const programs = blocks.filter(isRun)
  await writeFile(script, programOf(programs, port))
  let program: Program | null = null
  const components = blocks.filter(({ language }) => language === 'tsx')
  let shown: ReactPage | null = null

  const run = async (block: Block): Promise<void> => {
    const { language, says, text } = block
    if (language === 'sql') await database.query(text)
    else if (language === 'sh') await inBash(atPort(text, port), env, printed)
    else if (isRun(block)) {
      program ??= stack.use(new Program(script, env, printed))
      await program.next()
    } else if (language === 'tsx') {
      if (block === components.at(-1))
        shown = stack.use(await openReactPage(atPort(appOf(components, env), port), folder))
    } else if (language === 'text' && shown !== null) await show(shown, text.trimEnd().split('\n'))
    else if (language === 'text') await printed.take(text.trimEnd().split('\n'), says !== 'unordered')
  }
  for (const block of blocks)
    await run(block).catch((error: unknown) => {
      throw new Error(`docs/${page}.md, line ${block.line}: ${error instanceof Error ? error.message : error}`)
    })
  printed.end()
}
