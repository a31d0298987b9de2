// docker-compose.yml, run for real: only where a Docker engine answers and the base images are to be had. Everywhere else
// balancer.e2e.test.ts does the same with processes.
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, expect, test } from 'vitest'
import { freePort } from '../../src/cli/local-postgres.ts'
import { transports } from '../support/readers.ts'
import { ComingBack } from './coming-back.ts'
import { Compose, type Psql, run } from './compose.ts'

const ada = '00000000-0000-4000-8000-000000000ada'
const port = await freePort()
const url = `http://127.0.0.1:${port}`
const prepared = await Compose.prepare(`tidegate-test-${process.pid}`, port)
if (typeof prepared === 'string') console.warn(`docker-compose.yml, docker-compose.one.yml: NOT RUN, ${prepared}`)
const compose = typeof prepared === 'string' ? null : prepared

afterAll(() => compose?.remove(), 120_000)

test.skipIf(compose === null)(
  '[P4] docker compose up: readers on all three wires go on over the kill of a node and a rolling restart',
  async () => {
    const stack = compose!
    await stack.run('up', '-d', '--no-build')
    for (const node of nodes) await stack.healthy(node)
    await using psql = await stack.psql()
    await psql.query(await readFile(new URL('../../src/cli/dev/example.sql', import.meta.url), 'utf8'))
    await stack.run('run', '--rm', 'migrate', 'track', 'rooms', 'members', 'messages')
    const minted = await stack.run('exec', '-T', 'tidegate-1', 'node', 'dist/cli/main.js', 'token', '--sub', ada)
    expect((await fetch(`${url}/ready`)).status).toBe(200)

    const readers = transports.map(transport => new ComingBack(transport, url, 'messages', minted.trim()))
    for (const each of readers) await each.until(({ rows }) => rows.exact)
    const first = readers[0]!.rows.rows.size
    const written = await writing(psql, async () => {
      await progress(readers)
      // Without a word: whoever was on it comes back to the other, which leads by then.
      const killed = await stack.idOf('tidegate-1')
      await run(['docker', 'kill', killed])
      await progress(readers)
      await run(['docker', 'start', killed])
      await stack.healthy('tidegate-1')
      for (const node of nodes) {
        // As an upgrade does: another container, with another address.
        await stack.run('up', '-d', '--no-deps', '--no-build', '--force-recreate', node)
        await stack.healthy(node)
        await progress(readers)
      }
    })
    for (const each of readers) {
      await each.until(({ rows }) => rows.rows.size === first + written)
      expect([each.transport, each.resyncs, each.failure]).toEqual([each.transport, [], null])
      await each[Symbol.asyncDispose]()
    }

    // Signals reach the node itself, which says goodbye before the engine's patience ends.
    const ids = await Promise.all(nodes.map(node => stack.idOf(node)))
    await stack.run('stop', ...nodes)
    for (const id of ids) expect((await run(['docker', 'inspect', '-f', '{{.State.ExitCode}}', id])).trim()).toBe('0')
  },
  300_000,
)

test.skipIf(compose === null)(
  '[P4] one node alone: readers go on over its restart, and its image holds what it needs and no more',
  async () => {
    const alone = await freePort()
    const stack = compose!.of('docker-compose.one.yml', `${compose!.project}-one`, alone)
    try {
      await stack.run('up', '-d', '--no-build')
      await stack.healthy('tidegate')
      await using psql = await stack.psql()
      await psql.query(await readFile(new URL('../../src/cli/dev/example.sql', import.meta.url), 'utf8'))
      await stack.run('run', '--rm', 'migrate', 'track', 'rooms', 'members', 'messages')
      const minted = await stack.run('exec', '-T', 'tidegate', 'node', 'dist/cli/main.js', 'token', '--sub', ada)
      const readers = transports.map(
        transport => new ComingBack(transport, `http://127.0.0.1:${alone}`, 'messages', minted.trim()),
      )
      for (const each of readers) await each.until(({ rows }) => rows.exact)
      const first = readers[0]!.rows.rows.size
      const written = await writing(psql, async () => {
        await progress(readers)
        await stack.run('restart', 'tidegate')
        await stack.healthy('tidegate')
        await progress(readers)
      })
      for (const each of readers) {
        await each.until(({ rows }) => rows.rows.size === first + written)
        expect([each.transport, each.resyncs, each.failure]).toEqual([each.transport, [], null])
        await each[Symbol.asyncDispose]()
      }

      const inside = (script: string): Promise<string> =>
        stack.run('exec', '-T', 'tidegate', 'node', '--input-type=module', '--eval', script)
      expect((await inside('console.log(process.getuid())')).trim()).toBe('1000')
      // Traces can be exported, and nothing that only tests need is there.
      const names = ['@opentelemetry/sdk-trace', '@opentelemetry/exporter-trace-otlp-http', 'vitest', 'typescript']
      const found = await inside(
        `for (const name of ${JSON.stringify(names)}) console.log(await import(name).then(() => 'there', () => 'not there'))`,
      )
      expect(found.trim().split('\n')).toEqual(['there', 'there', 'not there', 'not there'])
    } finally {
      await stack.down()
    }
  },
  300_000,
)

const nodes = ['tidegate-1', 'tidegate-2'] as const

/** Ada's reader gets rows that are written from now on. */
async function progress(readers: readonly ComingBack[]): Promise<void> {
  const sizes = readers.map(({ rows }) => rows.rows.size)
  for (const [place, each] of readers.entries()) await each.until(({ rows }) => rows.rows.size > sizes[place]! + 5)
}

/** Writes a row now and then meanwhile. @returns how many were written */
async function writing(psql: Psql, use: () => Promise<void>): Promise<number> {
  let isOver = false
  let count = 0
  const writer = (async () => {
    while (!isOver) {
      await psql.query(`INSERT INTO messages (room_id, author, body) VALUES (1, '${ada}', 'another')`)
      count += 1
      await sleep(30)
    }
  })()
  try {
    await use()
  } finally {
    isOver = true
    await writer
  }
  return count
}
