// A Redis for the test file that asks, and only then: TEST_REDIS_URL, else Docker, else redis-server.
import { spawn } from 'node:child_process'
import { tmpdir } from 'node:os'
import { freePort } from '../../src/cli/local-postgres.ts'
import { programFromPackage } from './debian-package.ts'
import { reasonOf, whyNoDocker } from './docker.ts'

export interface TestRedis extends AsyncDisposable {
  readonly url: string
}

/** @example await using redis = await findRedis()
 *  @throws saying what to install */
export async function findRedis(): Promise<TestRedis> {
  const given = process.env.TEST_REDIS_URL
  if (given) {
    console.log('redis: TEST_REDIS_URL')
    return { url: given, [Symbol.asyncDispose]: async () => {} }
  }
  let reason = await whyNoDocker()
  if (reason === null) {
    try {
      return await dockerRedis()
    } catch (error) {
      reason = `Docker could not start it: ${reasonOf(error)}`
    }
  }
  return localRedis(reason)
}

async function dockerRedis(): Promise<TestRedis> {
  const { GenericContainer } = await import('testcontainers')
  const image = process.env.TEST_REDIS_IMAGE ?? 'redis:7'
  const container = await new GenericContainer(image).withExposedPorts(6379).start()
  console.log(`redis: Docker, ${image}`)
  return {
    url: `redis://${container.getHost()}:${container.getMappedPort(6379)}`,
    [Symbol.asyncDispose]: async () => {
      await container.stop()
    },
  }
}

async function localRedis(reason: string): Promise<TestRedis> {
  const program = await programFromPackage(['redis-server'], 'redis-server')
  const port = await freePort()
  const settings = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']
  const child = spawn(program, settings, { cwd: tmpdir(), stdio: ['ignore', 'pipe', 'pipe'] })
  const { promise: isReady, resolve, reject } = Promise.withResolvers<void>()
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output = (output + text).slice(-10_000)
    if (output.includes('Ready to accept connections')) resolve()
  })
  child.stderr.resume()
  const gone = new Promise<void>(ended => child.once('close', () => ended()))
  child.once('error', reject)
  child.once('close', code => reject(new Error(`redis-server exited with ${code}:\n${output}`)))
  await isReady
  console.log(`redis: ${program} on port ${port} (${reason})`)
  return {
    url: `redis://127.0.0.1:${port}`,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL')
      await gone
    },
  }
}
