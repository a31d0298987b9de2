// The node under test, a process of its own: it can be killed and frozen, its log is read, and what it holds is weighed.
import { fileURLToPath } from 'node:url'
import { freePort } from '../../src/cli/local-postgres.ts'
import { jwtSecret } from '../support/node.ts'
import { compiled, RunningProcess } from '../support/run-cli.ts'
import { until } from '../support/stalled.ts'

const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
const probe = new URL('../support/memory-probe.ts', import.meta.url).href

/** Longer than anybody here is away, and short enough to be full when the weighing begins. */
export const windowMs = 15_000

/** Small, so that a stale path and a dead peer are noticed within a test's patience. */
const settings: Readonly<Record<string, string>> = {
  LOG_LEVEL: 'info',
  BEACON_MS: '500',
  HEARTBEAT_MS: '1000',
  WINDOW_MAX_AGE_MS: String(windowMs),
}

export class NodeProcess {
  readonly url: string
  readonly #env: Readonly<Record<string, string>>
  #process: RunningProcess | null = null
  /** Lines before this one have been read. */
  #read = 0

  private constructor(url: string, env: Readonly<Record<string, string>>) {
    this.url = url
    this.#env = env
  }

  static async start(databaseUrl: string, more: Readonly<Record<string, string>> = {}): Promise<NodeProcess> {
    const port = await freePort()
    const own = { DATABASE_URL: databaseUrl, JWT_SECRET: jwtSecret, PORT: String(port) }
    const env = { ...settings, ...compiled, ...own, ...more }
    const node = new NodeProcess(`http://127.0.0.1:${port}`, env)
    await node.start()
    return node
  }

  /** Runs it, at the address it had before. */
  async start(): Promise<void> {
    this.#process = new RunningProcess(['--expose-gc', '--import', probe, main, 'start'], this.#env)
    this.#read = 0
    await this.#process.until(({ out }) => out.includes('ready'))
  }

  get pid(): number {
    return this.#process!.child.pid!
  }

  signal(signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.#process!.child.kill(signal)
  }

  /** As an orchestrator does. @returns the exit code */
  async stop(): Promise<number | null> {
    this.#process!.child.kill('SIGTERM')
    return (await this.#process!.end()).code
  }

  async kill(): Promise<void> {
    this.#process?.child.kill('SIGKILL')
    await this.#process?.end()
  }

  /** What it said since it was asked last: every line of its log, as `level code: text (reason)`. */
  said(): string[] {
    const lines = this.#lines()
    const said = lines.slice(this.#read)
    this.#read = lines.length
    return said
  }

  /** Resolves when this line is among them. */
  async untilSaid(line: string): Promise<void> {
    await until(() => this.saying.includes(line), 40_000).catch(() => {
      throw new Error(`it never said "${line}", but:\n${this.saying.join('\n')}`)
    })
  }

  /** The same, without taking it. */
  get saying(): string[] {
    return this.#lines().slice(this.#read)
  }

  /** Bytes that it holds after a garbage collection: V8's heap and what hangs on it. Not its resident memory: V8 gives
   *  pages back when it pleases, so that after a burst RSS says what was needed once, not what is held. */
  async weigh(): Promise<number> {
    const before = this.#weights().length
    this.#process!.child.kill('SIGUSR2')
    await this.#process!.until(() => this.#weights().length > before)
    return this.#weights().at(-1)!
  }

  #weights(): number[] {
    return [...this.#process!.err.matchAll(/^\{"weighed":(\d+)\}$/gm)].map(([, bytes]) => Number(bytes))
  }

  #lines(): string[] {
    return this.#process!.err.split('\n')
      .slice(0, -1)
      .filter(line => !line.startsWith('{"weighed"'))
      .map(lineOf)
  }
}

const levels: Readonly<Record<number, string>> = { 20: 'debug', 30: 'info', 40: 'warn', 50: 'error' }

function lineOf(line: string): string {
  // Whatever is not of the log is told as it is: nothing of that kind is expected.
  if (!line.startsWith('{')) return line
  const { level, code, msg, err } = JSON.parse(line) as {
    level: number
    code?: string
    msg: string
    err?: { message: string; code?: string }
  }
  const head = `${levels[level]}${code === undefined ? '' : ` ${code}`}: ${msg}`
  return err === undefined ? head : `${head} (${err.code ?? ''} ${err.message})`
}
