// A block of a page as a terminal that runs it.
import { type ChildProcess, spawn } from 'node:child_process'
import { setTimeout } from 'node:timers/promises'

export class Shell implements AsyncDisposable {
  stdout = ''
  // Apart: curl draws its progress between the lines of the stream.
  stderr = ''
  exitCode: number | null = null
  readonly #child: ChildProcess
  #wake = (): void => {}

  /** @param env all of it but PATH and HOME */
  constructor(script: string, { cwd, env }: { cwd: string; env: Readonly<Record<string, string>> }) {
    const { PATH = '', HOME = '' } = process.env
    // A group of its own: npm does not hand on every signal.
    this.#child = spawn('bash', ['-euo', 'pipefail', '-c', script], {
      cwd,
      env: { PATH, HOME, ...env },
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text
      this.#wake()
    })
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text
    })
    this.#child.once('close', code => {
      this.exitCode = code ?? -1
      this.#wake()
    })
  }

  /** @throws when it ends before, or it takes longer than two minutes */
  async until(isTrue: () => boolean): Promise<void> {
    const deadline = Date.now() + 120_000
    while (!isTrue()) {
      if (this.exitCode !== null) throw this.#ended()
      if (Date.now() > deadline) throw new Error(`it did not come to that:\n${this.stdout}${this.stderr}`)
      await Promise.race([this.#news(), setTimeout(1000, null, { ref: false })])
    }
  }

  /** @throws when it fails */
  async end(): Promise<void> {
    while (this.exitCode === null) await this.#news()
    if (this.exitCode !== 0) throw this.#ended()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.exitCode === null) process.kill(-this.#child.pid!, 'SIGTERM')
    while (this.exitCode === null) await this.#news()
  }

  #ended(): Error {
    return new Error(`the block ended with ${this.exitCode}:\n${this.stdout}${this.stderr}`)
  }

  #news(): Promise<void> {
    return new Promise(resolve => {
      this.#wake = resolve
    })
  }
}
