// nginx as a process of the tests, and Debian's with its defaults.
import { spawn } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '../../src/cli/local-postgres.ts'
import { programFromPackage } from './debian-package.ts'

export interface Nginx extends AsyncDisposable {
  readonly url: string
}

/** Starts it with a configuration that listens on this port, and is to hold every file that it writes in this folder.
 *  @throws what `nginx -t` says, if it says anything */
export async function runNginx(configure: (folder: string, port: number) => Promise<string>): Promise<Nginx> {
  const program = await programFromPackage(['nginx'], 'nginx-light')
  const folder = await mkdtemp(join(tmpdir(), 'tidegate-nginx-'))
  const port = await freePort()
  const file = join(folder, 'nginx.conf')
  await writeFile(file, await configure(folder, port))
  const tested = await run(program, ['-t', '-c', file])
  // A warning is a refusal of the next version.
  if (tested.code !== 0 || /\[(warn|emerg|alert)\]/.test(tested.err)) throw new Error(`nginx -t says:\n${tested.err}`)
  const child = spawn(program, ['-c', file, '-g', 'daemon off;'], { stdio: 'ignore' })
  const gone = new Promise<void>(resolve => child.once('close', () => resolve()))
  const url = `http://127.0.0.1:${port}`
  // Any answer: it listens a moment after it was started.
  while (
    !(await fetch(`${url}/health`).then(
      () => true,
      () => false,
    ))
  ) {
    if (child.exitCode !== null) throw new Error(`nginx ended with ${child.exitCode}`)
    await sleep(10)
  }
  return {
    url,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGTERM')
      await gone
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** The nginx.conf that Debian's package brings, and a site that passes everything on: what somebody has who never heard of
 *  WebSockets, buffers or timeouts.
 *  @param targetUrl of an HTTP server on this machine */
export async function startDebianNginx(targetUrl: string): Promise<Nginx> {
  await programFromPackage(['nginx'], 'nginx-light')
  return runNginx(async (folder, port) => {
    const config = await readFile('/etc/nginx/nginx.conf', 'utf8')
    const sites = join(folder, 'sites')
    await mkdir(sites)
    await writeFile(
      join(sites, 'default'),
      `server { listen 127.0.0.1:${port}; location / { include /etc/nginx/proxy_params; proxy_pass ${targetUrl}; } }`,
    )
    return [
      ['/run/nginx.pid', join(folder, 'nginx.pid')],
      ['/var/log/nginx/error.log', join(folder, 'error.log')],
      ['/var/log/nginx/access.log', join(folder, 'access.log')],
      ['/etc/nginx/conf.d/*.conf', join(folder, '*.none')],
      ['/etc/nginx/sites-enabled/*', join(sites, '*')],
    ].reduce((text, [from = '', to = '']) => replaceOnce(text, from, to), config)
  })
}

/** @throws when it is not there exactly once */
export function replaceOnce(text: string, from: string, to: string): string {
  if (text.split(from).length !== 2) throw new Error(`the configuration holds "${from}" not exactly once`)
  return text.replace(from, () => to)
}

async function run(program: string, args: readonly string[]): Promise<{ code: number | null; err: string }> {
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  let err = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text
  })
  const code = await new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve))
  return { code, err }
}
