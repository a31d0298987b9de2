// Does what a new user does: in an empty folder, with a database that exists, runs the blocks of the README, then those of
// docs/quickstart.md, and nothing else. Prints the seconds until the first live row, install included; fails above 300.
// Run: npm run quickstart
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { freePort, LocalPostgres } from '../src/cli/local-postgres.ts'
import { Shell } from '../test/docs/shell.ts'
import { networkSettings, PackedPackage } from '../test/support/packed.ts'

export const maxSeconds = 300

interface Page {
  readonly path: string
  /** Of the headings under which the blocks are. */
  readonly sections: readonly string[]
  /** What the database holds before, as the application's login made it. */
  readonly before: string
  readonly database: string
  /** What a row that comes looks like in the output of the page's program. */
  readonly row: string
}

export const pages: readonly Page[] = [
  {
    path: 'README.md',
    sections: ['With the database you have'],
    before: '',
    database: 'app',
    row: "title: 'Water the plants'",
  },
  {
    path: 'docs/quickstart.md',
    sections: ['1. ', '2. ', '3. ', '4. ', '5. ', '6. ', '7. ', '8. '],
    before: `
      CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer uuid NOT NULL, status text NOT NULL);
      INSERT INTO orders (customer, status)
        SELECT '22222222-2222-4222-8222-222222222222', 'packed' FROM generate_series(1, 100)`,
    database: 'shop',
    row: "status: 'packed'",
  },
]

interface Block {
  readonly language: string
  readonly text: string
}

/** The blocks of a page to be run, in the order in which they are. */
export async function blocksOf({ path, sections }: Pick<Page, 'path' | 'sections'>): Promise<Block[]> {
  const text = await readFile(new URL(`../${path}`, import.meta.url), 'utf8')
  const parts = text.split(/^## /m).filter(part => sections.some(section => part.startsWith(section)))
  return parts.flatMap(part =>
    [...part.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(match => ({ language: match[1]!, text: match[2]! })),
  )
}

/** @returns seconds until a row that was written came to the page's program
 *  @throws with what was printed when a block fails */
export async function follow(page: Page, tarball: string, server: LocalPostgres): Promise<number> {
  const blocks = await blocksOf(page)
  const port = await freePort()
  const address = `127.0.0.1:${server.port}/${page.database}`
  const admin = server.url.replace(/\/postgres$/, `/${page.database}`)
  await query(server.url, `CREATE ROLE app LOGIN PASSWORD 'secret'`)
  await query(server.url, `CREATE DATABASE ${page.database} OWNER app`)
  const app = `postgres://app:secret@${address}`
  if (page.before !== '') await query(app, page.before)
  const env: Record<string, string> = {
    ...networkSettings(),
    ADMIN_DATABASE_URL: admin,
    APP_URL: app,
    DATABASE_URL: `postgres://tidegate:choose-one@${address}`,
    JWT_SECRET: 'a secret of at least thirty-two bytes',
    PORT: String(port),
  }
  const folder = await mkdtemp(join(tmpdir(), 'quickstart-'))
  await using stack = new AsyncDisposableStack()
  stack.defer(() => rm(folder, { recursive: true, force: true }))

  const started = performance.now()
  let program: Shell | null = null
  let serves = false
  for (const { language, text } of blocks) {
    const script = text
      .replaceAll('npm install tidegate', `npm install ${tarball}`)
      .replaceAll('localhost:4000', `127.0.0.1:${port}`)
    if (language === 'ts') {
      const [, name = ''] = /^\/\/ (\S+)\n/.exec(script) ?? []
      await writeFile(join(folder, name), script)
    } else if (/^export \w+=postgres/.test(script)) {
      const named = [...script.matchAll(/^export (\w+)=/gm)].map(match => match[1]!)
      const unknown = named.filter(setting => !(setting in env))
      if (unknown.length > 0) throw new Error(`${page.path} asks for ${unknown}, and nobody knows what to put in`)
    } else if (script.includes('tidegate start')) {
      const serving = stack.use(new Shell(script, { cwd: folder, env }))
      await serving.until(() => serving.stdout.includes('tidegate is ready'))
      serves = true
    } else if (/^node /m.test(script)) {
      program = stack.use(new Shell(script, { cwd: folder, env }))
      const following = program
      await following.until(() => following.stdout.includes('live ['))
    } else if (/^curl -N/m.test(script)) {
      // A stream that a person would watch in a terminal of its own.
      stack.use(new Shell(script, { cwd: folder, env }))
    } else {
      await new Shell(script, { cwd: folder, env }).end()
      if (program !== null && /INSERT/.test(script)) {
        const following = program
        await following.until(() => following.stdout.includes(page.row))
        break
      }
    }
  }
  if (!serves || program === null) throw new Error(`${page.path} starts no server, or follows nothing`)
  const following = program
  await following.until(() => following.stdout.includes(page.row))
  return (performance.now() - started) / 1000
}

async function query(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(sql)
  } finally {
    await client.end()
  }
}

if (import.meta.main) {
  const packed = await mkdtemp(join(tmpdir(), 'packed-'))
  try {
    // What a registry would hold. Making it is not the user's time.
    const tarball = join(packed, await PackedPackage.packInto(packed))
    for (const page of pages) {
      // Of its own: roles are of the whole server, and each page makes some.
      await using server = await LocalPostgres.create({ settings: { max_slot_wal_keep_size: '1GB' } })
      await server.start()
      const seconds = await follow(page, tarball, server)
      console.log(`${page.path}: the first live row after ${seconds.toFixed(1)} s, install included`)
      if (seconds > maxSeconds) process.exitCode = 1
    }
  } finally {
    await rm(packed, { recursive: true, force: true })
  }
}
