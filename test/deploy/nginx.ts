// The balancer's configuration as it stands in deploy/nginx.conf, before two nodes on this machine instead of Docker's names.
import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '../../src/cli/local-postgres.ts'
import { programFromPackage } from '../support/debian-package.ts'

export interface Nginx extends AsyncDisposable {
  readonly url: string
}

/** @param ports of the nodes, on loopback. @throws what `nginx -t` says, if it says anything */
export async function startNginx(ports: readonly number[]): Promise<Nginx> {
  const program = await programFromPackage(['nginx'], 'nginx-light')
  const folder = await mkdtemp(join(tmpdir(), 'tidegate-nginx-'))
  const port = await freePort()
  const config = await readFile(new URL('../../deploy/nginx.conf', import.meta.url), 'utf8')
  const file = join(folder, 'nginx.conf')
  // No node is remembered as failed: so it is with names that are resolved anew.
  await writeFile(
    file,
    [
      ['listen 8080;', `listen 127.0.0.1:${port};`],
      ['set $nodes tidegate:4000;', 'set $nodes nodes;'],
      ['pid /tmp/nginx.pid;', `pid ${folder}/nginx.pid;`],
      ['http {', `http { upstream nodes { ${ports.map(each => `server 127.0.0.1:${each} max_fails=0;`).join(' ')} }`],
    ].reduce((text, [from = '', to = '']) => replaceOnce(text, from, to), config),
  )
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

function replaceOnce(text: string, from: string, to: string): string {
  if (text.split(from).length !== 2) throw new Error(`deploy/nginx.conf holds "${from}" not exactly once`)
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
