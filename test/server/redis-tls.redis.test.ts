// TLS to what Sentinels name, and to a Cluster: each server, each Sentinel, and whoever they point to.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { freePort } from '../../src/cli/local-postgres.ts'
import { defineScript } from '../../src/server/redis/redis-script.ts'
import { Authority, type Certificate } from '../support/authority.ts'
import { programFromPackage } from '../support/debian-package.ts'
import { open } from '../support/redis-clients.ts'

let authority: Authority
let stranger: Authority
let certificate: Certificate
let folder: string
const running: ChildProcess[] = []

beforeAll(async () => {
  ;[authority, stranger] = await Promise.all([Authority.create(), Authority.create()])
  certificate = await authority.issue('redis', 'IP:127.0.0.1,DNS:localhost')
  folder = await mkdtemp(join(tmpdir(), 'tidegate-redis-tls-'))
})

afterAll(async () => {
  for (const child of running) {
    const gone = once(child, 'exit')
    child.kill('SIGKILL')
    await gone
  }
  await rm(folder, { recursive: true, force: true })
  await authority?.[Symbol.asyncDispose]()
  await stranger?.[Symbol.asyncDispose]()
})

/** A server that speaks TLS only, also to others. @returns its port */
async function start(lines: readonly string[], ...more: readonly string[]): Promise<number> {
  const program = await programFromPackage(['redis-server'], 'redis-server')
  const port = await freePort()
  const tls = [
    `tls-cert-file ${certificate.cert}`,
    `tls-key-file ${certificate.key}`,
    `tls-ca-cert-file ${authority.ca}`,
  ]
  const file = join(folder, `${port}.conf`)
  const all = [
    'bind 127.0.0.1',
    'port 0',
    `tls-port ${port}`,
    ...tls,
    'tls-auth-clients no',
    'tls-replication yes',
    `dir ${folder}`,
    ...lines,
  ]
  await writeFile(file, `${all.join('\n')}\n`)
  const child = spawn(program, [file, ...more], { stdio: ['ignore', 'pipe', 'ignore'] })
  running.push(child)
  let output = ''
  await new Promise<void>((resolve, reject) => {
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text
      if (/Ready to accept connections|Sentinel ID is/.test(output)) resolve()
    })
    child.once('exit', code => reject(new Error(`redis-server exited with ${code}:\n${output}`)))
  })
  return port
}

const places: readonly [string, () => Promise<string>][] = [
  [
    'named by a Sentinel',
    async () => {
      const master = await start(['save ""'])
      const sentinel = await start([`sentinel monitor main 127.0.0.1 ${master} 1`], '--sentinel')
      return `rediss+sentinel://127.0.0.1:${sentinel}/main`
    },
  ],
  [
    'of a Cluster',
    async () => {
      const busPort = await freePort()
      const member = await start([
        ...[
          'save ""',
          'cluster-enabled yes',
          'tls-cluster yes',
          `cluster-port ${busPort}`,
          'cluster-config-file cluster.conf',
        ],
        'cluster-announce-ip 127.0.0.1',
      ])
      using one = open(`rediss://127.0.0.1:${member}?ssl_ca_certs=${authority.ca}`, 2000)
      await one.answered(client => client.call('CLUSTER', 'ADDSLOTSRANGE', '0', '16383'))
      await expect.poll(async () => String(await one.client.call('CLUSTER', 'INFO'))).toContain('cluster_state:ok')
      return `rediss+cluster://localhost:${member}`
    },
  ],
]

test.each(places)(
  'a server %s is reached by TLS alone, and a stranger in its place is not believed',
  async (_, started) => {
    const url = await started()
    using opened = await open(`${url}?ssl_ca_certs=${authority.ca}`, 2000).works()
    const run = defineScript(opened.client, `return redis.call('INCR', KEYS[1])`)
    expect([await run(['{tidegate}:k'], []), await run(['{tidegate}:k'], [])].map(Number)).toEqual([1, 2])
    using refused = open(`${url}?ssl_ca_certs=${stranger.ca}`, 1000)
    await expect(refused.client.get('{tidegate}:k')).rejects.toThrow()
  },
)
