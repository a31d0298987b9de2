// A node as deploy/kubernetes starts, probes, measures and stops it: the process itself, without a cluster around it.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { freePort } from '../../src/cli/local-postgres.ts'
import { eventually } from '../support/eventually.ts'
import { prepareDatabase, roomsSchema } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { findRedis, type TestRedis } from '../support/redis.ts'
import { type RunningProcess, startCli } from '../support/run-cli.ts'
import { containerOf, manifest, type Probe } from './manifests.ts'

const deployment = manifest('Deployment')
const container = containerOf(deployment)
const operatorToken = 'fedcba9876543210fedcba9876543210'
let database: TestDatabase
let redis: TestRedis
let node: RunningProcess
/** By the names that the manifest gives them. */
let ports: Readonly<Record<string, number>>

beforeAll(async () => {
  database = await TestDatabase.create()
  redis = await findRedis()
  await prepareDatabase(database, roomsSchema, ['messages'])
  ports = { http: await freePort(), admin: await freePort() }
  const secrets: Record<string, string> = {
    DATABASE_URL: database.url,
    REDIS_URL: redis.url,
    JWT_SECRET: '0123456789abcdef0123456789abcdef',
    OPERATOR_TOKEN: operatorToken,
  }
  const env = Object.fromEntries(container.env.map(({ name }) => [name, secrets[name]!]))
  const places = { HOST: '127.0.0.1', PORT: String(ports.http), ADMIN_PORT: String(ports.admin) }
  node = startCli(container.args, { ...manifest('ConfigMap').data, ...env, ...places })
}, 120_000)

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
  await redis?.[Symbol.asyncDispose]()
})

const ask = ({ httpGet: { path, port } }: Pick<Probe, 'httpGet'>): Promise<number> =>
  fetch(`http://127.0.0.1:${ports[port]}${path}`).then(
    ({ status }) => status,
    () => 0,
  )

test('it lives, then is ready, within the time that its probes give it', async () => {
  const { startupProbe, livenessProbe, readinessProbe } = container
  await eventually(async () => expect(await ask(startupProbe)).toBe(200))
  await eventually(async () => expect(await ask(readinessProbe)).toBe(200))
  expect(await ask(livenessProbe)).toBe(200)
})

test('the monitor asks where the metrics are, by a token that opens them; clients find nothing there', async () => {
  const monitor = manifest('ServiceMonitor', 'tidegate', 'kubernetes/monitoring.yaml')
  const [{ path, port, authorization }] = monitor.spec.endpoints
  const metrics = (port: string, token: string | null): Promise<Response> =>
    fetch(`http://127.0.0.1:${ports[port]}${path}`, {
      headers: token === null ? {} : { authorization: `${authorization.type} ${token}` },
    })
  const answer = await metrics(port, operatorToken)
  expect([answer.status, await answer.text()]).toEqual([200, expect.stringMatching(/^tidegate_\w+/m)])
  expect((await metrics(port, null)).status).toBe(401)
  expect((await metrics('http', operatorToken)).status).toBe(404)
})

test('told to stop, it is red before it goes, and gone within its grace', async () => {
  const beganMs = performance.now()
  node.child.kill('SIGTERM')
  await eventually(async () => expect(await ask(container.readinessProbe)).toBe(503))
  expect(await ask(container.livenessProbe)).toBe(200)
  const { code } = await node.end()
  expect(code).toBe(0)
  const { terminationGracePeriodSeconds } = deployment.spec.template.spec
  expect(performance.now() - beganMs).toBeLessThan((terminationGracePeriodSeconds * 1000) / 2)
})
