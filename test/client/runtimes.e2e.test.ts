// The client in every runtime that has the web's interfaces: one program, the same bytes for each.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { bundle } from '../../scripts/bundle-size.ts'
import { startTidegate, type TestTidegate } from '../../src/testing/start-tidegate.ts'
import { channelPolicies } from '../support/channel-client.ts'
import { FaultyLink } from '../support/faulty-link.ts'
import { roomsSchema } from '../support/node.ts'

const { platform, arch } = process
const packaged = createRequire(import.meta.url).resolve
/** Programs that npm brings, without their packages' install scripts. */
const runtimes: Readonly<Record<string, readonly string[]>> = {
  node: [process.execPath],
  deno: [packaged(`@deno/${platform}-${arch}${platform === 'linux' ? '-glibc' : ''}/deno`), 'run', '--allow-net'],
  bun: [packaged(`@oven/bun-${platform}-${arch === 'arm64' ? 'aarch64' : arch}/bin/bun`), 'run'],
}
const user = '00000000-0000-4000-8000-000000000ada'

/** Each in a room of its own. */
const cases = Object.keys(runtimes)
  .flatMap(runtime => (['websocket', 'sse', 'long-poll'] as const).map(transport => [runtime, transport] as const))
  .map(([runtime, transport], index) => ({ runtime, transport, room: index + 1 }))

let tide: TestTidegate
let folder: string
let program: string

beforeAll(async () => {
  tide = await startTidegate({
    databaseUrl: inject('databaseUrl'),
    setup: roomsSchema + channelPolicies,
    tables: ['rooms', 'members', 'messages'],
    // A request that the link has swallowed is given up this much sooner.
    config: { HEARTBEAT_MS: 1000, CHANNELS: [{ pattern: '*', history: { length: 100, age: '10m' } }] },
  })
  await tide.sql`INSERT INTO members SELECT room, ${user} FROM generate_series(1, ${cases.length}) room`
  folder = await mkdtemp(join(tmpdir(), 'tidegate-runtimes-'))
  program = join(folder, 'program.mjs')
  const { code, imports } = await bundle(fileURLToPath(new URL('runtimes/program.ts', import.meta.url)))
  expect(imports).toEqual([])
  await writeFile(program, code)
})
afterAll(async () => {
  await tide?.[Symbol.asyncDispose]()
  if (folder !== undefined) await rm(folder, { recursive: true, force: true })
})

/** The program in a runtime, and what it has told. */
class Running implements AsyncDisposable {
  /** Texts of the values that it has told, by what they are. */
  readonly told = new Map<string, string[]>()
  readonly #child: ChildProcess
  #output = ''
  #wake: () => void = () => {}
  isOver = false

  constructor(command: readonly string[], args: readonly string[]) {
    const [file = '', ...before] = command
    const env = { PATH: process.env.PATH, HOME: folder, DENO_NO_UPDATE_CHECK: '1', NO_COLOR: '1' }
    this.#child = spawn(file, [...before, program, ...args], { cwd: folder, env })
    let line = ''
    this.#child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.#output += text
      const lines = (line + text).split('\n')
      line = lines.pop()!
      for (const each of lines) {
        const [what, value] = JSON.parse(each) as [string, unknown]
        this.told.set(what, [...(this.told.get(what) ?? []), JSON.stringify(value)])
      }
      this.#wake()
    })
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#output += text
    })
    this.#child.once('close', () => {
      this.isOver = true
      this.#wake()
    })
  }

  /** Resolves when it has told this last. */
  async until(what: string, value: unknown): Promise<void> {
    while (this.told.get(what)?.at(-1) !== JSON.stringify(value)) {
      if (this.isOver)
        throw new Error(`it ended with ${this.#child.exitCode} before ${what} ${value}:\n${this.#output}`)
      await this.#news()
    }
  }

  /** Resolves with the code with which it ends by itself. */
  async end(): Promise<number | null> {
    while (!this.isOver) await this.#news()
    return this.#child.exitCode
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.isOver) return
    const closed = once(this.#child, 'close')
    this.#child.kill('SIGKILL')
    await closed
  }

  #news(): Promise<void> {
    return new Promise(resolve => {
      this.#wake = resolve
    })
  }
}

test.each(cases)(
  '[P1] [P4] $runtime over $transport: rows, changes, messages, and on where it stood after a cut',
  async ({ runtime, transport, room }) => {
    await using link = await FaultyLink.to(tide.url)
    const write = (id: number, body: string) =>
      tide.sql`INSERT INTO messages VALUES (${10 * room + id}, ${room}, ${user}, ${body})`
    const other = tide.client(user).channel<{ said: string; end: null }>(`room:${room}`)
    const heard: string[] = []
    other.on('said', ({ payload }) => heard.push(payload))
    await write(1, 'first')
    await using running = new Running(runtimes[runtime]!, [link.url, await tide.token(user), transport, String(room)])
    await running.until('rows', ['first'])
    await expect.poll(() => heard).toEqual([`from ${transport}`])
    await write(2, 'second')
    await running.until('rows', ['first', 'second'])
    await other.send('said', 'to all')
    await running.until('said', 'to all')

    link.isolate()
    link.cut()
    await running.until('status', 'offline')
    await tide.query(
      `UPDATE messages SET body = 'changed' WHERE id = ${10 * room + 1}; DELETE FROM messages WHERE id = ${10 * room + 2}`,
    )
    await other.send('said', 'meanwhile')
    link.thaw()
    await running.until('rows', ['changed'])
    await running.until('said', 'meanwhile')
    await other.send('said', 'afterwards')
    await running.until('said', 'afterwards')

    await other.send('end', null)
    expect(await running.end()).toBe(0)
    expect(running.told.get('said')).toEqual(['"to all"', '"meanwhile"', '"afterwards"'])
    expect(running.told.get('error') ?? []).toEqual([])
  },
)
