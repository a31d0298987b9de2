// The tests of an application that uses the package, run as its people run them.
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { whyNoDocker } from '../support/docker.ts'
import { PackedPackage } from '../support/packed.ts'

const noDocker = await whyNoDocker()
if (noDocker !== null) console.warn(`examples/testing over Docker: NOT RUN, ${noDocker}`)
let example: PackedPackage

beforeAll(async () => {
  example = await PackedPackage.install(new URL('../../examples/testing/', import.meta.url))
}, 300_000)
afterAll(() => example?.[Symbol.asyncDispose]())

const summary = (passed: number) => expect.stringMatching(new RegExp(`pass ${passed}\\n.*fail 0\\n`, 's'))

test('examples/testing: npm test, with a Postgres that is there', async () => {
  expect(await example.succeed('npm', ['test'], { TEST_DATABASE_URL: inject('databaseUrl') })).toEqual(summary(3))
}, 120_000)

test('its tests can fail: without the policy they do', async () => {
  const spoilt = ['-e', 's/USING (EXISTS.*/USING (true);/', 'schema.sql']
  await example.succeed('sed', ['-i.bak', ...spoilt])
  const { code, out } = await example.run('npm', ['test'], { TEST_DATABASE_URL: inject('databaseUrl') })
  await example.succeed('mv', ['schema.sql.bak', 'schema.sql'])
  expect([code, out]).toEqual([1, expect.stringMatching(/fail 1\n/)])
  expect(out).toContain('✖ the policies hold')
}, 120_000)

test.skipIf(noDocker !== null)(
  'examples/testing: npm test, with nothing but Docker',
  async () => {
    await example.link('testcontainers')
    const { DOCKER_HOST, TESTCONTAINERS_RYUK_DISABLED, TEST_POSTGRES_IMAGE = 'postgres:15' } = process.env
    const env = {
      TEST_POSTGRES_IMAGE,
      ...(DOCKER_HOST && { DOCKER_HOST }),
      ...(TESTCONTAINERS_RYUK_DISABLED && { TESTCONTAINERS_RYUK_DISABLED }),
    }
    expect(await example.succeed('npm', ['test'], env)).toEqual(summary(3))
  },
  300_000,
)
