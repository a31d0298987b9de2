// The gateways of docs/guide/supabase.md, as the page shows them, before a node on this machine.
import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '../../src/cli/local-postgres.ts'
import { readBlocks } from '../docs/guide-page.ts'
import { programFromPackage } from '../support/debian-package.ts'
import { replaceOnce, runNginx } from '../support/nginx.ts'

export interface Gateway extends AsyncDisposable {
  readonly url: string
  /** Of nginx: what it wrote of requests. */
  readonly log?: () => Promise<string>
}

/** Where the page's names lead on this machine. */
export interface Behind {
  /** Of the node. */
  readonly tidegateUrl: string
  /** Of what else there is of Supabase. */
  readonly restUrl: string
}

/** The page's block of this language, which it has once. */
export async function blockOf(language: string): Promise<string> {
  const blocks = (await readBlocks('guide/supabase')).filter(block => block.language === language)
  if (blocks.length !== 1) throw new Error(`the page has ${blocks.length} blocks of ${language}`)
  return blocks[0]!.text
}

const hostOf = (url: string): string => new URL(url).host

/** @param listens what the page says of its own port, and what stands there instead */
const placed = (text: string, { tidegateUrl, restUrl }: Behind, listens: readonly [string, string]): string =>
  [['tidegate:4000', hostOf(tidegateUrl)], ['kong:8000', hostOf(restUrl)], listens].reduce(
    (text, [from = '', to = '']) => replaceOnce(text, from, to),
    text,
  )

/** @throws what `nginx -t` says, if it says anything */
export async function startNginxGateway(behind: Behind): Promise<Gateway> {
  const site = await blockOf('nginx')
  let logOf = ''
  const nginx = await runNginx(async (folder, port) => {
    logOf = `${folder}/access.log`
    return nginxAround(placed(site, behind, ['listen 8000;', `listen 127.0.0.1:${port};`]), folder)
  })
  return {
    url: nginx.url,
    log: () => readFile(logOf, 'utf8'),
    [Symbol.asyncDispose]: () => nginx[Symbol.asyncDispose](),
  }
}

const nginxAround = (site: string, folder: string): string => `
  pid ${folder}/nginx.pid;
  error_log ${folder}/error.log;
  events {}
  http { access_log ${folder}/access.log; ${site} }`

/** What Kong does with the page's services: the longest path of a route that begins the request's is stripped, and the rest goes behind
 *  the service's URL. By nginx, because Kong is no Debian package. It also does what the plugins beside them do to a key that is no
 *  JWT: they put one into the query, and the header `x-api-key` or `Authorization`.
 *  @param jwt null: no plugin */
export async function startLikeKong(behind: Behind, jwt: string | null): Promise<Gateway> {
  const services = kongServices(await blockOf('yaml')).toSorted((a, b) => b.path.length - a.path.length)
  const at = (index: number): string => `$rest_${index}`
  // As it was written: what is percent-encoded stays so.
  const rests = services.map(
    ({ path }, index) => `map $request_uri ${at(index)} { ~^${path}/?(?<r${index}>.*)$ $r${index}; }`,
  )
  const locations = services.map(({ url, path }, index) => {
    const key = url.endsWith('/socket') ? `x-api-key ${jwt}` : `Authorization "Bearer ${jwt}"`
    return `location ${path.replace(/\/?$/, '/')} {
      proxy_pass ${url.replace('tidegate:4000', hostOf(behind.tidegateUrl))}/${at(index)};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_header;
      ${jwt === null ? '' : `proxy_set_header ${key};`}
    }`
  })
  return runNginx(async (folder, port) =>
    nginxAround(
      `${rests.join('\n')}
      map $http_upgrade $connection_header { default upgrade; '' ''; }
      server { listen 127.0.0.1:${port}; ${locations.join('\n')} location / { proxy_pass ${behind.restUrl}; } }`,
      folder,
    ),
  )
}

interface KongService {
  readonly name: string
  readonly url: string
  readonly path: string
}

/** Of a list whose services each have one route, of one path, which is stripped. */
export function kongServices(yaml: string): KongService[] {
  const services = yaml.split(/^ {2}- /m).slice(1)
  return services.map(service => {
    const [, name = '', url = ''] = /^name: (\S+)\n(?: {4}.*\n)*? {4}url: (\S+)\n/.exec(service) ?? []
    const [, path = ''] = /^ {8}strip_path: true\n {8}paths:\n {10}- (\S+)\n/m.exec(service) ?? []
    if (name === '' || url === '' || path === '') throw new Error(`a service of another shape:\n${service}`)
    return { name, url, path }
  })
}

/** @throws what Caddy says */
export async function startCaddyGateway(behind: Behind): Promise<Gateway> {
  const program = await programFromPackage(['caddy'], 'caddy')
  const folder = await mkdtemp(join(tmpdir(), 'tidegate-caddy-'))
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const site = placed(await blockOf('caddyfile'), behind, [':8000 {', `http://127.0.0.1:${port} {`])
  const file = join(folder, 'Caddyfile')
  await writeFile(file, `{\n  admin off\n}\n${site}`)
  const env = { PATH: process.env.PATH, HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder }
  const child = spawn(program, ['run', '--config', file, '--adapter', 'caddyfile'], {
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let errors = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors = (errors + text).slice(-5000)
  })
  const gone = new Promise<void>(resolve => child.once('close', () => resolve()))
  while (
    !(await fetch(`${url}/health`).then(
      () => true,
      () => false,
    ))
  ) {
    if (child.exitCode !== null) throw new Error(`caddy ended with ${child.exitCode}:\n${errors}`)
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
