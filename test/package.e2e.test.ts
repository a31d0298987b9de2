// The published package, as somebody has it who ran `npm install tidegate` in an empty folder.
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { PackedPackage, repository } from './support/packed.ts'

const manifest = JSON.parse(await readFile(join(repository, 'package.json'), 'utf8')) as {
  exports: Record<string, string | { types: string; default: string }>
  peerDependencies: Record<string, string>
  peerDependenciesMeta: Record<string, { optional: boolean }>
}
let installed: PackedPackage
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
})

test('npm installs nothing that only some need: those packages are optional', async () => {
  for (const name of Object.keys(manifest.peerDependencies)) {
    expect(manifest.peerDependenciesMeta[name]).toEqual({ optional: true })
    await expect(readFile(join(installed.folder, 'node_modules', name, 'package.json'))).rejects.toMatchObject({
      code: 'ENOENT',
    })
  }
})

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
  const tidegate = join(installed.folder, 'node_modules/.bin/tidegate')
  expect(await installed.succeed(tidegate, ['--help'])).toContain('tidegate')
  const token = await installed.succeed(tidegate, ['token', '--sub', 'ada'], { JWT_SECRET: 'x'.repeat(32) })
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
