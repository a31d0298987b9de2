import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { loadConfig, optionNames } from '../../src/server/config/config.ts'

interface Manifest {
  readonly bin: { readonly tidegate: string }
  readonly engines: { readonly node: string }
  readonly dependencies: Readonly<Record<string, string>>
  readonly peerDependencies: Readonly<Record<string, string>>
}

const read = (name: string): string => readFileSync(new URL(`../../${name}`, import.meta.url), 'utf8')
const compose = read('docker-compose.yml')
const alone = read('docker-compose.one.yml')
const dockerfile = read('Dockerfile')
const nginx = read('deploy/nginx.conf')
const manifest = JSON.parse(read('package.json')) as Manifest

/** What a node is started with, `${NAME:-default}` taken as its default. */
function environmentOf(anchor: RegExp): Record<string, string> {
  const block = compose.match(anchor)?.[1] ?? ''
  const lines = block.matchAll(/^ +([A-Z_]+): (.*)$/gm)
  return Object.fromEntries([...lines].map(([, name, value]) => [name, value!.replace(/\$\{\w+:-([^}]*)\}/g, '$1')]))
}
const node = environmentOf(/environment: &environment\n((?: {4}.*\n)+)/)
const image = Object.fromEntries(
  [...(dockerfile.match(/^ENV (.*)$/m)?.[1] ?? '').matchAll(/(\w+)=(\S+)/g)].map(([, name, value]) => [name, value]),
)

test('the settings of its nodes are options, with values that fit', () => {
  expect(Object.keys(node)).toEqual(expect.arrayContaining(['DATABASE_URL', 'REDIS_URL', 'JWT_SECRET']))
  const known: readonly string[] = optionNames
  expect(Object.keys({ ...node, ...image }).filter(name => !known.includes(name))).toEqual(['NODE_ENV'])
  const config = loadConfig({ ...image, ...node })
  expect(config.host).toBe('0.0.0.0')
  expect(nginx).toContain(`set $nodes tidegate:${config.port};`)
})

test('every secret can be set, and is development-only where it is not', () => {
  const secrets = [...`${compose}${alone}`.matchAll(/\$\{(\w*(?:PASSWORD|SECRET))(:-[^}]*)?\}/g)]
  expect(secrets.length).toBeGreaterThan(5)
  expect(secrets.filter(([, , text]) => !text?.startsWith(':-development-only'))).toEqual([])
  expect(`${compose}${alone}`.match(/(?:PASSWORD|SECRET\w*): (?!\$\{)/g)).toBeNull()
})

test('only the balancer is reached from outside, and from this machine only unless asked otherwise', () => {
  expect(compose.match(/ports:\n(?: +- .*\n)+/g)).toEqual([
    expect.stringContaining(`"\${PUBLIC_ADDRESS:-127.0.0.1}:\${PUBLIC_PORT:-4000}:8080"`),
  ])
  expect(nginx).toContain('listen 8080;')
})

test('one node alone is reached from this machine only unless asked otherwise, and started with options that fit', () => {
  const { services } = parse(alone) as {
    services: Record<string, { environment?: Record<string, string | number>; ports?: string[] }>
  }
  expect(Object.values(services).flatMap(({ ports = [] }) => ports)).toEqual([
    `\${PUBLIC_ADDRESS:-127.0.0.1}:\${PUBLIC_PORT:-4000}:4000`,
  ])
  const settings = Object.entries(services.tidegate!.environment!).map(([name, value]) => [
    name,
    String(value).replace(/\$\{\w+:-([^}]*)\}/g, '$1'),
  ])
  expect(settings.map(([name]) => name).filter(name => !(optionNames as readonly string[]).includes(name!))).toEqual([])
  expect(loadConfig({ ...image, ...Object.fromEntries(settings) })).toMatchObject({ redisUrl: null, port: 4000 })
})

test('the image runs as nobody special, and node itself gets the signals', () => {
  expect(dockerfile).toMatch(/^USER 1000:1000$/m)
  expect(dockerfile).toMatch(/^STOPSIGNAL SIGTERM$/m)
  expect(dockerfile).toContain(`ENTRYPOINT ["node", "${manifest.bin.tidegate.replace('./', '')}"]`)
  expect(dockerfile).not.toMatch(/^(?:CMD|ENTRYPOINT) [^[]/m)
  expect(dockerfile).toContain(`ARG NODE_IMAGE=node:${manifest.engines.node.replace('>=', '')}-`)
})

test('what the image is made of is sent to the engine, and no more', () => {
  const sent = read('.dockerignore')
    .match(/^!(.*)$/gm)!
    .map(line => line.slice(1))
  const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.*) \S+$/gm)].flatMap(([, names]) => names!.split(' '))
  expect([...new Set(copied)].sort()).toEqual(sent.sort())
})

test('nothing between client and node is quiet for longer than a heartbeat, or keeps an event for itself', () => {
  const { heartbeatMs } = loadConfig(node)
  const seconds = Number(nginx.match(/proxy_read_timeout (\d+)s;/)?.[1])
  expect(seconds).toBeGreaterThanOrEqual(Math.max(2 * (heartbeatMs / 1000), 60) + 5)
  expect(nginx).toContain('proxy_buffering off;')
})

test('the sources import nothing that only developers install, but where they do without', () => {
  const folder = new URL('../../src/', import.meta.url)
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter(path => path.endsWith('.ts'))
  const imported = files.flatMap(path => {
    const text = readFileSync(new URL(path, folder), 'utf8')
    return [...text.matchAll(/^(?:import|export) (?!type ).*? from '([^.'][^']*)'|^} from '([^.'][^']*)'/gm)]
      .map(([, whole, end]) => (whole ?? end)!)
      .filter(name => !name.startsWith('node:'))
      .map(name => [path, name.match(/^(?:@[^/]+\/)?[^/]+/)![0]] as const)
  })
  const names = imported.map(([, name]) => name)
  expect(names).toEqual(expect.arrayContaining(['ws', 'react']))
  // Whoever uses the hooks has React; nothing else of ours may ask for it.
  const missing = imported.filter(
    ([path, name]) =>
      !(name in manifest.dependencies) && !(path.startsWith('react/') && name in manifest.peerDependencies),
  )
  expect(missing).toEqual([])
})
