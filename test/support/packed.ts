// The package as npm would publish it, installed into a folder of its own: outside of the repository nothing is found by chance.
import { spawn } from 'node:child_process'
import { copyFile, cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { hashOf, makeOnce } from './make-once.ts'
import { RunningProcess } from './run-cli.ts'

export const repository = fileURLToPath(new URL('../../', import.meta.url))

/** What the package is made of. */
const sources = [
  ...['package.json', 'tsconfig.json', 'tsconfig.build.json', 'scripts', 'src'],
  ...['migrations', 'docs', 'README.md', 'CHANGELOG.md', 'LICENSE'],
]

/** How programs of this machine reach a registry. */
export const networkSettings = (): Record<string, string> =>
  Object.fromEntries(
    Object.entries(process.env).flatMap(([name, value]) =>
      /^(npm_config_|(https?|no|all)_proxy$|(node_extra|ssl)_)/i.test(name) && value !== undefined
        ? [[name, value]]
        : [],
    ),
  )

export interface RunResult {
  readonly code: number | null
  /** Both streams, as they came. */
  readonly out: string
}

interface Tarball {
  readonly filename: string
  readonly size: number
  readonly files: readonly { readonly path: string }[]
}

export class PackedPackage implements AsyncDisposable {
  readonly folder: string
  /** Paths in the tarball. */
  readonly files: readonly string[]
  /** Of the tarball. */
  readonly bytes: number

  private constructor(folder: string, { files, size }: Pick<Tarball, 'files' | 'size'> = { files: [], size: 0 }) {
    this.folder = folder
    this.files = files.map(({ path }) => path)
    this.bytes = size
  }

  /** @param source a folder to install it into a copy of, whose package.json names it; left out: an empty one */
  static async install(source?: URL): Promise<PackedPackage> {
    const folder = await mkdtemp(join(tmpdir(), 'tidegate-package-'))
    if (source !== undefined) await cp(source, folder, { recursive: true })
    else await writeFile(join(folder, 'package.json'), '{ "type": "module", "private": true }')
    const empty = new PackedPackage(folder)
    const tarball = await empty.take()
    // What only its development needs is linked where a test wants it.
    await empty.succeed('npm', ['pkg', 'delete', 'devDependencies'])
    const quiet = ['--prefer-offline', '--no-audit', '--no-fund']
    await empty.succeed('npm', ['install', ...quiet, `./${tarball.filename}`], networkSettings())
    return new PackedPackage(folder, tarball)
  }

  /** Only the package itself, in a folder that holds nothing else. @returns the tarball's name in it */
  static async packInto(folder: string): Promise<string> {
    return (await new PackedPackage(folder).pack()).filename
  }

  /** The tarball of the sources as they are, which is made once for all test files: that takes a quarter of a minute. */
  private async take(): Promise<Tarball> {
    const hash = await hashOf(repository, [...sources, 'node_modules/typescript/package.json'])
    const kept = join(repository, 'node_modules/.cache/tidegate-packed', hash)
    await makeOnce(kept, async folder => {
      const tarball = await this.pack()
      await copyFile(join(this.folder, tarball.filename), join(folder, tarball.filename))
      await writeFile(join(folder, 'tarball.json'), JSON.stringify(tarball))
    })
    const tarball = JSON.parse(await readFile(join(kept, 'tarball.json'), 'utf8')) as Tarball
    await copyFile(join(kept, tarball.filename), join(this.folder, tarball.filename))
    return tarball
  }

  /** Of a copy: another test may build the repository's own at the same time. */
  private async pack(): Promise<Tarball> {
    const copy = await mkdtemp(join(tmpdir(), 'tidegate-build-'))
    try {
      for (const name of sources) await cp(join(repository, name), join(copy, name), { recursive: true })
      await symlink(join(repository, 'node_modules'), join(copy, 'node_modules'))
      const quiet = ['--json', '--loglevel=error', '--foreground-scripts=false']
      const told = await this.succeed('npm', ['pack', copy, ...quiet])
      const [tarball] = Object.values(JSON.parse(told.slice(told.search(/^[[{]/m)))) as [Tarball]
      return tarball
    } finally {
      await rm(copy, { recursive: true, force: true })
    }
  }

  /** Lets it find a package of this repository. */
  link(name: string): Promise<void> {
    return symlink(join(repository, 'node_modules', name), join(this.folder, 'node_modules', name))
  }

  /** Runs a program there. Nothing of this machine's settings gets in, but where programs are. */
  async run(program: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<RunResult> {
    const { PATH = '', HOME = '' } = process.env
    const child = spawn(program, args, { cwd: this.folder, env: { PATH, HOME, NODE_NO_WARNINGS: '1', ...env } })
    let out = ''
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => {
        out += text
      })
    const code = await new Promise<number | null>((resolve, reject) =>
      child.once('error', reject).once('close', resolve),
    )
    return { code, out }
  }

  /** @returns what it said @throws with that when it fails */
  async succeed(program: string, args: readonly string[], env?: Readonly<Record<string, string>>): Promise<string> {
    const { code, out } = await this.run(program, args, env)
    if (code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${code}:\n${out}`)
    return out
  }

  /** `npx tidegate`, there, until it is disposed of. */
  start(args: readonly string[], env: Readonly<Record<string, string>> = {}): RunningProcess {
    const { HOME = '' } = process.env
    const main = join(this.folder, 'node_modules/tidegate/dist/cli/main.js')
    return new RunningProcess([main, ...args], { HOME, ...env }, this.folder)
  }

  /** Runs the text of an ECMAScript module. */
  runModule(text: string, env?: Readonly<Record<string, string>>): Promise<string> {
    return this.succeed(process.execPath, ['--input-type=module', '-e', text], env)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.folder, { recursive: true, force: true })
  }
}
