// docs/guide/supabase.md, block by block: a database as a self-hosted Supabase leaves it, Tidegate started as the page says, nginx as it
// is there, and the published client.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { expect, test } from 'vitest'
import { freePort, LocalPostgres } from '../../src/cli/local-postgres.ts'
import { startNginxGateway } from '../deploy/supabase-gateways.ts'
import { jwtSecret, tokenFor } from '../support/node.ts'
import { repository } from '../support/packed.ts'
import { TestDatabase } from '../support/postgres.ts'
import { compiled } from '../support/run-cli.ts'
import { makeSupabase } from '../support/supabase-schema.ts'
import { isRun, linkPackage, Printed, Program, programOf, readBlocks, users } from './guide-page.ts'
import { Shell } from './shell.ts'

const login = { name: 'project', password: 'secret' }

test('whoever follows the page has their application on Tidegate', { timeout: 300_000 }, async () => {
  await using stack = new AsyncDisposableStack()
  const postgres = stack.use(await LocalPostgres.create({ settings: { max_slot_wal_keep_size: '1GB' } }))
  await postgres.start()
  const database = stack.use(await TestDatabase.create(postgres.url))
  await makeSupabase(database, { login })
  const adminUrl = database.urlFor(login.name, login.password)
  const project = new pg.Client({ connectionString: adminUrl })
  await project.connect()
  stack.defer(() => project.end())

  const folder = await mkdtemp(join(tmpdir(), 'guide-supabase-'))
  stack.defer(() => rm(folder, { recursive: true, force: true }))
  const npx = `#!/bin/sh\nshift\nexec '${process.execPath}' '${repository}src/cli/main.ts' "$@"\n`
  await writeFile(join(folder, 'npx'), npx, { mode: 0o755 })
  await linkPackage(folder, ['@supabase/supabase-js'])
  const port = await freePort()
  const env = { PATH: `${folder}:${process.env.PATH ?? ''}`, NODE_NO_WARNINGS: '1', ...compiled, PORT: String(port) }
  const settings = (text: string): string =>
    text
      .replace(/^export ADMIN_DATABASE_URL=\S+/m, `export ADMIN_DATABASE_URL=${adminUrl}`)
      .replace(/^export DATABASE_URL=\S+/m, `export DATABASE_URL=${database.urlFor('tidegate', 'choose-one')}`)
      .replace(/^export JWT_SECRET=\S+/m, `export JWT_SECRET='${jwtSecret}'`)

  const blocks = await readBlocks('guide/supabase')
  const printed = new Printed()
  const script = join(folder, 'page.mjs')
  const keys = {
    ANON_KEY: await tokenFor(users.ana, { role: 'anon' }),
    SERVICE_KEY: await tokenFor(users.ana, { role: 'service_role', sub: undefined }),
    ANA_TOKEN: await tokenFor(users.ana),
  }
  let exported = ''
  let program: Program | null = null
  for (const block of blocks) {
    const { language, says, text } = block
    try {
      if (language === 'sql') await project.query(text)
      else if (language === 'sh' && text.startsWith('export ADMIN')) exported = settings(text)
      else if (language === 'sh') {
        const shell = new Shell(exported + text, { cwd: folder, env })
        if (text.endsWith('npx tidegate start\n')) {
          stack.use(shell)
          await shell.until(() => shell.stdout.includes('tidegate is ready'))
        } else await shell.end()
      } else if (language === 'nginx') {
        const restUrl = `http://127.0.0.1:${await freePort()}`
        const gateway = stack.use(await startNginxGateway({ tidegateUrl: `http://127.0.0.1:${port}`, restUrl }))
        const programs = programOf(blocks.filter(isRun), port)
        await writeFile(script, programs.replaceAll('http://localhost:8000', gateway.url))
      } else if (isRun(block)) {
        program ??= stack.use(new Program(script, { ...env, ...keys }, printed))
        await program.next()
      } else if (language === 'text') await printed.take(text.trimEnd().split('\n'), says !== 'unordered')
    } catch (error) {
      throw new Error(`docs/guide/supabase.md, line ${block.line}: ${error instanceof Error ? error.message : error}`)
    }
  }
  printed.end()
  expect(program).not.toBeNull()
})
