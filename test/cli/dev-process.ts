// `tidegate dev` as a process of its own, in a folder of its own, as someone at a terminal has it.
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { freePort } from '../../src/cli/local-postgres.ts'
import { compiled } from '../support/run-cli.ts'

const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))

export interface DevRequest {
  /** Kept from one process to the next; without it a new one, removed at the end. */
  readonly folder?: string
  readonly arguments?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
}

export class DevProcess {
  readonly page: string
  readonly #child: ChildProcess
  readonly #folder: string | null
  /** Everything on standard output and standard error, in the order it came. */
  stdout = ''
  stderr = ''
  #wake = (): void => {}
  /** Null while it runs. */
  exit: { code: number | null; signal: string | null } | null = null

  private constructor(child: ChildProcess, page: string, folder: string | null) {
    this.#child = child
    this.page = page
    this.#folder = folder
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text
      this.#wake()
    })
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text
      this.#wake()
    })
    child.once('close', (code, signal) => {
      this.exit = { code, signal }
      this.#wake()
    })
  }

  static async spawn(request: DevRequest = {}): Promise<DevProcess> {
    const folder = request.folder ?? (await mkdtemp(join(tmpdir(), 'tidegate-dev-')))
    const port = await freePort()
    const { DATABASE_URL, ADMIN_DATABASE_URL, JWT_SECRET, ...inherited } = process.env
    const child = spawn(process.execPath, [main, 'dev', ...(request.arguments ?? [])], {
      cwd: folder,
      env: { ...inherited, ...compiled, PORT: String(port), ...request.env },
      // A process group of its own, as a shell gives each command.
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    return new DevProcess(child, `http://127.0.0.1:${port}`, request.folder === undefined ? folder : null)
  }

  /** Spawns, and waits for the block. */
  static async start(request: DevRequest = {}): Promise<DevProcess> {
    const dev = await DevProcess.spawn(request)
    try {
      await dev.until(() => dev.stdout.includes('Ctrl-C ends it.'))
      return dev
    } catch (error) {
      await dev[Symbol.asyncDispose]()
      throw error
    }
  }

  /** @throws with all it said, when it ends before */
  async until(isTrue: () => boolean): Promise<void> {
    while (!isTrue()) {
      if (this.exit !== null)
        throw new Error(`tidegate dev ended with ${this.exit.code}:\n${this.stdout}${this.stderr}`)
      await new Promise<void>(resolve => {
        this.#wake = resolve
      })
    }
  }

  /** The value of a line of the block: `Page`, `Database`, `Token Ada`. */
  fact(name: string): string {
    const value = new RegExp(`^  ${name} +(\\S.*)$`, 'm').exec(this.stdout)?.[1]
    if (value === undefined) throw new Error(`no "${name}" in:\n${this.stdout}`)
    return value
  }

  /** Ctrl-C, which reaches the whole process group, and all that follows of it. */
  async interrupt(): Promise<{ code: number | null; signal: string | null }> {
    process.kill(-this.#child.pid!, 'SIGINT')
    while (this.exit === null) {
      await new Promise<void>(resolve => {
        this.#wake = resolve
      })
    }
    return this.exit
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.exit === null) await this.interrupt()
    // Postgres's files belong to another user when we are root; removing them is ours either way.
    if (this.#folder !== null) await rm(this.#folder, { recursive: true, force: true })
  }
}
