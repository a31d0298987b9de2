// Runs `tidegate` as a process of its own, as a person does.
import { type ChildProcess, spawn } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { fileURLToPath } from 'node:url'

const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))

/** Where processes that run our sources keep them compiled: read anew, they cost each nearly half a second of a core. */
export const compiled = {
  NODE_COMPILE_CACHE: fileURLToPath(new URL('../../node_modules/.cache/tidegate-compiled', import.meta.url)),
}

export interface CliResult {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

/** Nothing of this machine's settings gets in: the environment is what the test gives. */
export function environment(env: Readonly<Record<string, string>> = {}): Record<string, string> {
  return { PATH: process.env.PATH ?? '', NODE_NO_WARNINGS: '1', ...env }
}

/** A process whose output a test waits for. */
export class RunningProcess {
  readonly child: ChildProcess
  out = ''
  err = ''
  readonly #output = new EventEmitter()
  readonly #ended: Promise<unknown>

  /** @param cwd its working directory, if not ours */
  constructor(args: readonly string[], env: Readonly<Record<string, string>> = {}, cwd?: string) {
    this.child = spawn(process.execPath, args, { cwd, env: environment(env), stdio: ['ignore', 'pipe', 'pipe'] })
    this.child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.out += text
      this.#output.emit('text')
    })
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.err += text
      this.#output.emit('text')
    })
    this.#ended = once(this.child, 'close')
  }

  /** Resolves when `has` says so of what the process printed. @throws when it ends before */
  async until(has: (process: this) => boolean): Promise<void> {
    while (!has(this)) {
      const next = once(this.#output, 'text').then(() => false)
      const isOver = await Promise.race([next, this.#ended.then(() => true)])
      if (isOver && !has(this)) throw new Error(`it ended before:\n${this.out}\n${this.err}`)
    }
  }

  async end(): Promise<CliResult> {
    await this.#ended
    return { code: this.child.exitCode, out: this.out, err: this.err }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill('SIGKILL')
    await this.#ended
  }
}

/** @example await using running = startCli(['start'], { PORT: '0' }) */
export const startCli = (args: readonly string[], env?: Readonly<Record<string, string>>): RunningProcess =>
  new RunningProcess([main, ...args], { ...compiled, ...env })

/** @example const { code, out } = await runCli(['token', '--sub', id], { JWT_SECRET }) */
export const runCli = (args: readonly string[], env?: Readonly<Record<string, string>>): Promise<CliResult> =>
  startCli(args, env).end()
