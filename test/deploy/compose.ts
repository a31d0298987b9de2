// docker-compose.yml as a person starts it, under a name of its own, on the Docker engine that answers.
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { reasonOf, whyNoDocker } from '../support/docker.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))

/** What stands for the images that the file names: those that the other tests use. */
export const images = {
  POSTGRES_IMAGE: process.env.TEST_POSTGRES_IMAGE ?? 'postgres:15',
  REDIS_IMAGE: process.env.TEST_REDIS_IMAGE ?? 'redis:7',
  NGINX_IMAGE: process.env.TEST_NGINX_IMAGE ?? 'nginx:1',
}
const nodeImage = process.env.TEST_NODE_IMAGE ?? 'node:24-slim'

export class Compose {
  readonly project: string
  readonly #program: readonly string[]
  readonly #file: string
  readonly #env: Readonly<Record<string, string>>

  private constructor(
    project: string,
    program: readonly string[],
    env: Readonly<Record<string, string>>,
    file = 'docker-compose.yml',
  ) {
    this.project = project
    this.#program = program
    this.#file = file
    this.#env = env
  }

  /** Builds the image, if it can. @returns the reason why not, if there is no engine, no compose or no base image */
  static async prepare(project: string, publicPort: number): Promise<Compose | string> {
    const reason = await whyNoDocker()
    if (reason !== null) return reason
    try {
      for (const image of [...Object.values(images), nodeImage]) {
        const has = await run(['docker', 'image', 'inspect', image]).catch(() => null)
        if (has === null) await run(['docker', 'pull', '-q', image])
      }
      const program = await run(['docker', 'compose', 'version']).then(
        () => ['docker', 'compose'],
        () => run(['docker-compose', 'version']).then(() => ['docker-compose']),
      )
      const image = `tidegate:${project}`
      // On the network of the machine, because that is where npm works; compose would build it on a bridge.
      const arg = ['--build-arg', `NODE_IMAGE=${nodeImage}`]
      await run(['docker', 'build', '--network', 'host', ...arg, '-t', image, root])
      const env = { ...images, TIDEGATE_IMAGE: image, PUBLIC_PORT: String(publicPort) }
      return new Compose(project, program, env)
    } catch (error) {
      return reasonOf(error)
    }
  }

  /** @returns what it printed. @throws with what it said when it fails */
  run(...args: readonly string[]): Promise<string> {
    return run([...this.#program, '-p', this.project, '-f', `${root}${this.#file}`, ...args], this.#env)
  }

  /** The same image, by another file. */
  of(file: string, project: string, publicPort: number): Compose {
    return new Compose(project, this.#program, { ...this.#env, PUBLIC_PORT: String(publicPort) }, file)
  }

  async idOf(service: string): Promise<string> {
    return (await this.run('ps', '-q', '-a', service)).trim()
  }

  /** Resolves when Docker says that the container answers its health check. */
  async healthy(service: string, timeoutMs = 60_000): Promise<void> {
    const deadline = Date.now() + timeoutMs
    for (;;) {
      const state = await run(['docker', 'inspect', '-f', '{{.State.Health.Status}}', await this.idOf(service)])
      if (state.trim() === 'healthy') return
      if (Date.now() > deadline) throw new Error(`${service} is ${state.trim()}:\n${await this.run('logs', service)}`)
      await new Promise(resolve => setTimeout(resolve, 200))
    }
  }

  /** One psql for as long as the test, as the owner of the database. */
  async psql(): Promise<Psql> {
    return new Psql(await this.idOf('postgres'))
  }

  /** Leaves nothing but the image: containers, network, volumes. */
  async down(): Promise<void> {
    await this.run('down', '-v', '--remove-orphans')
  }

  async remove(): Promise<void> {
    await this.down()
    await run(['docker', 'rmi', `tidegate:${this.project}`])
  }
}

/** Statements go in; a mark that comes back says that they are done. */
export class Psql implements AsyncDisposable {
  readonly #child
  readonly #ended: Promise<void>
  #out = ''
  #marks = 0

  constructor(container: string) {
    const command = ['exec', '-i', container, 'psql', '-q', '-v', 'ON_ERROR_STOP=1', '-U', 'postgres', '-d', 'app']
    this.#child = spawn('docker', command, { stdio: ['pipe', 'pipe', 'pipe'] })
    for (const stream of [this.#child.stdout, this.#child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (this.#out += text))
    this.#ended = new Promise(resolve => this.#child.once('close', () => resolve()))
  }

  async query(sql: string): Promise<void> {
    const mark = `done ${++this.#marks}`
    this.#child.stdin.write(`${sql};\n\\echo ${mark}\n`)
    while (!this.#out.includes(`${mark}\n`)) {
      if (this.#child.exitCode !== null) throw new Error(`psql ended: ${this.#out}`)
      await new Promise(resolve => setTimeout(resolve, 2))
    }
    this.#out = ''
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin.end()
    await this.#ended
  }
}

/** @throws with the end of what it said, when it fails */
export async function run(command: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<string> {
  const child = spawn(command[0]!, command.slice(1), {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let out = ''
  let all = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text
    all += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    all += text
  })
  const code = await new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve))
  if (code !== 0) throw new Error(`${command.slice(0, 5).join(' ')} failed with ${code}: ${all.slice(-1500)}`)
  return out
}
