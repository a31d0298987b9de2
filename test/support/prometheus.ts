// Debian's Prometheus on loopback, scraping one node every second.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { programFromPackage } from './debian-package.ts'
import { eventually } from './eventually.ts'

export interface Sample {
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export class Prometheus implements AsyncDisposable {
  readonly url: string
  readonly #child: ChildProcess
  readonly #folder: string

  private constructor(url: string, child: ChildProcess, folder: string) {
    this.url = url
    this.#child = child
    this.#folder = folder
  }

  /** @param rules paths of files of rules */
  static async start(target: string, token: string, rules: readonly string[] = []): Promise<Prometheus> {
    const program = await programFromPackage(['prometheus'], 'prometheus')
    const folder = await mkdtemp(join(tmpdir(), 'tidegate-prometheus-'))
    const config = join(folder, 'prometheus.yml')
    const address = `127.0.0.1:${await freePort()}`
    await writeFile(
      config,
      stringify({
        global: { scrape_interval: '1s', evaluation_interval: '1s' },
        rule_files: rules,
        scrape_configs: [
          { job_name: 'tidegate', authorization: { credentials: token }, static_configs: [{ targets: [target] }] },
        ],
      }),
    )
    const child = spawn(
      program,
      [`--config.file=${config}`, `--storage.tsdb.path=${join(folder, 'data')}`, `--web.listen-address=${address}`],
      { stdio: 'ignore' },
    )
    const prometheus = new Prometheus(`http://${address}`, child, folder)
    await eventually(async () => {
      const { status } = await fetch(`${prometheus.url}/-/ready`)
      if (status !== 200) throw new Error(`Prometheus answers ${status}`)
    })
    return prometheus
  }

  /** @throws when it cannot read the expression */
  async query(expr: string): Promise<Sample[]> {
    const response = await fetch(`${this.url}/api/v1/query?${new URLSearchParams({ query: expr })}`)
    const { data, error } = (await response.json()) as {
      data?: { result: { metric: Record<string, string>; value: [number, string] }[] }
      error?: string
    }
    if (data === undefined) throw new Error(`${expr}: ${error}`)
    return data.result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }))
  }

  /** Of each rule: `ok`, `unknown` before it was evaluated, or why it failed. */
  async rules(): Promise<ReadonlyMap<string, string>> {
    const response = await fetch(`${this.url}/api/v1/rules`)
    const { data } = (await response.json()) as {
      data: { groups: { rules: { name: string; health: string; lastError?: string }[] }[] }
    }
    const rules = data.groups.flatMap(group => group.rules)
    return new Map(rules.map(({ name, health, lastError }) => [name, lastError ?? health]))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = once(this.#child, 'exit')
    if (this.#child.exitCode === null) {
      this.#child.kill('SIGKILL')
      await ended
    }
    await rm(this.#folder, { recursive: true, force: true })
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' && address !== null ? address.port : 0
}
