import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { expect, test } from 'vitest'
import { connectionFor, isRedisAway, whyRedisAway } from '../../../src/server/redis/redis.ts'
import { FaultyLink } from '../../support/faulty-link.ts'
import { open } from '../../support/redis-clients.ts'
import { lastingPort, startRedis } from '../../support/redis-process.ts'
import { expectWithin } from '../../support/within.ts'

const key = '{tidegate}:k'

/** Who the server takes the connection for: another number is another connection. */
const idOf = (opened: ReturnType<typeof open>): Promise<unknown> => connectionFor(opened.client, key)!.client('ID')

test('while Redis is away commands fail at once and are never carried out later; it comes back, and so does the client', async () => {
  await using redis = await startRedis({ appendonly: true })
  using opened = await open(redis.url).works()
  await opened.client.set(key, 'before')
  await redis.kill()
  await opened.fails()
  const refused = await Promise.allSettled(Array.from({ length: 100 }, () => opened.client.set(key, 'while away')))
  expect(refused.every(({ status }) => status === 'rejected')).toBe(true)
  const { error, tookMs } = await opened.fails()
  expect(isRedisAway(error)).toBe(true)
  expectWithin(tookMs, 50)
  await expect.poll(() => whyRedisAway(opened.client) ?? '').toContain('ECONNREFUSED')
  await redis.start()
  const { reply, afterMs } = await opened.answered(client => client.get(key))
  expect(reply).toBe('before')
  expectWithin(afterMs, 1000)
  expect(whyRedisAway(opened.client)).toBeNull()
})

test('what was sent when the connection broke is not sent again', async () => {
  await using redis = await startRedis()
  await using link = await FaultyLink.to(redis.url)
  using opened = await open(link.url).works()
  link.freeze(['down'])
  const lost = opened.client.incr(key)
  await expect.poll(() => redis.ask('GET', key)).toBe('1')
  link.cut()
  await expect(lost).rejects.toSatisfy(isRedisAway)
  expect((await opened.answered(client => client.get(key))).reply).toBe('1')
})

test('a connection that owes an answer too long is left, with all that wait behind it, for a new one', async () => {
  await using redis = await startRedis()
  await using link = await FaultyLink.to(redis.url)
  using opened = await open(link.url, 300).works()
  link.freeze()
  const askedMs = performance.now()
  const first = opened.client.get(key)
  const timers = [first, opened.client.set(key, 'late')].map(asked => asked.catch((error: unknown) => error))
  const errors = await Promise.all(timers)
  expect(errors.every(isRedisAway)).toBe(true)
  expectWithin(performance.now() - askedMs, 600)
  // The old one is still as it was: only a new one can answer.
  expectWithin((await opened.answered(client => client.get(key))).afterMs, 500)
  expect(link.accepted).toBe(2)
})

test.each([300, 20_000])(
  'a server that takes the connection and says nothing is given up, with a command timeout of %i ms',
  async timeoutMs => {
    await using redis = await startRedis()
    await using link = await FaultyLink.to(redis.url)
    link.isolate()
    using opened = open(link.url, timeoutMs)
    await expect.poll(() => link.accepted, { timeout: 20_000 }).toBeGreaterThan(2)
    expectWithin((await opened.fails()).tookMs, 50)
    link.thaw()
    expectWithin((await opened.answered(client => client.get(key))).afterMs, 2000)
  },
)

test('[P7] a read that blocks over a dead connection ends by its time, and the next one goes over a new connection', async () => {
  await using redis = await startRedis()
  await using link = await FaultyLink.to(redis.url)
  using opened = await open(link.url, 400).works()
  const read = (): Promise<unknown> => opened.client.xread('BLOCK', 200, 'STREAMS', key, '$')
  expect(await read()).toBeNull()
  link.freeze()
  const askedMs = performance.now()
  await expect(read()).rejects.toSatisfy(isRedisAway)
  expectWithin(performance.now() - askedMs, 800)
  expect((await opened.answered(read)).reply).toBeNull()
  expect(link.accepted).toBe(2)
})

test('a master that was made a replica is left, for whoever is master behind the same name', async () => {
  await using redis = await startRedis()
  await using other = await startRedis()
  using opened = await open(redis.url).works()
  const before = await idOf(opened)
  await redis.follow(other)
  await opened.works()
  const demoted = await idOf(opened)
  await expect(opened.client.set(key, '1')).rejects.toSatisfy(isRedisAway)
  await expect.poll(() => idOf(opened).catch(() => demoted)).not.toBe(demoted)
  expect(await idOf(opened)).not.toBe(before)
  await redis.promote()
  await opened.answered(client => client.set(key, '2'))
})

test('a read that blocks is told when its server is made a replica', async () => {
  await using redis = await startRedis()
  await using other = await startRedis()
  using opened = await open(redis.url, 25_000).works()
  const blocked = opened.client.blpop(key, 20)
  await expect.poll(() => redis.ask('INFO', 'clients')).toContain('blocked_clients:1')
  await redis.follow(other)
  await expect(blocked).rejects.toSatisfy(isRedisAway)
})

test('a server that loads its data counts as away, and no longer than it does', async () => {
  await using redis = await startRedis({
    settings: { 'key-load-delay': '5000', 'loading-process-events-interval-bytes': '1024' },
  })
  using opened = await open(redis.url).works()
  for (let n = 0; n < 200; n += 1) await opened.client.set(`filler:${n}`, 'x'.repeat(1000))
  const copy = await redis.save()
  await redis.kill()
  const started = redis.start(copy)
  // A second of five milliseconds for each key.
  await expect.poll(() => redis.ask('GET', key).catch(String)).toContain('LOADING')
  const { error, tookMs } = await opened.fails()
  expect(isRedisAway(error)).toBe(true)
  expectWithin(tookMs, 50)
  await started
  expectWithin((await opened.answered(client => client.get('filler:1'))).afterMs, 1000)
})

test('a closed client leaves nothing: no timer, no unhandled rejection, whatever state it was in', async () => {
  await using redis = await startRedis()
  await using link = await FaultyLink.to(redis.url)
  link.isolate()
  const nobody = `127.0.0.1:${await lastingPort()}`
  const silent = new URL(link.url).host
  const urls = [
    redis.url,
    ...['redis://HOST', 'redis+sentinel://HOST/main', 'redis+cluster://HOST'].flatMap(url =>
      [nobody, silent].map(host => url.replace('HOST', host)),
    ),
  ]
  const ended = await Promise.all(urls.map(endOf))
  expect(ended).toEqual(urls.map(url => ({ url, code: 0, output: '', isSoon: true })))
})

/** A process that opens, asks, waits, closes while it asks, and has nothing else to do. */
async function endOf(url: string): Promise<{ url: string; code: number | null; output: string; isSoon: boolean }> {
  const script = `
    import { openRedis, closeRedis } from ${JSON.stringify(new URL('../../../src/server/redis/redis.ts', import.meta.url).href)}
    const client = openRedis(${JSON.stringify(url)}, { connectionName: 'test', commandTimeoutMs: 20_000 })
    const blocking = () => client.blpop('{tidegate}:k', 20).catch(() => {})
    setTimeout(blocking, 300)
    setTimeout(() => { blocking(); closeRedis(client); process.send('closed') ; process.disconnect() }, 400)
  `
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  })
  let output = ''
  for (const stream of [child.stdout!, child.stderr!]) stream.on('data', data => (output += data))
  await once(child, 'message')
  const closedMs = performance.now()
  const [code] = (await once(child, 'exit')) as [number | null]
  return { url, code, output, isSoon: performance.now() - closedMs < 500 }
}

test('TLS: by the authority that the URL names, or by none where it says so, and else not at all', async () => {
  await using redis = await startRedis({ tls: true, password: 's e:cret' })
  using unknown = open(redis.url)
  await expect.poll(() => whyRedisAway(unknown.client) ?? '').toMatch(/certificate|self-signed/)
  using named = open(`${redis.url}?ssl_ca_certs=${redis.certificate!.authorityFile}`)
  await named.works()
  using any = open(`${redis.url}?ssl_cert_reqs=none`)
  await any.works()
})

test('a user with a password, and a database of its own', async () => {
  await using redis = await startRedis()
  await redis.ask('ACL', 'SETUSER', 'tide', 'on', '>p@ss', '~*', '+@all')
  const url = (login: string): string => redis.url.replace('//', `//${login}@`)
  using opened = await open(`${url('tide:p%40ss')}/3`).works()
  await opened.client.set(key, 'there')
  expect(await redis.ask('GET', key)).toBeNull()
  expect(await opened.client.call('ACL', 'WHOAMI')).toBe('tide')
  // In the same database after it came back.
  await redis.ask('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  expect((await opened.answered(client => client.get(key))).reply).toBe('there')
  using refused = open(url('tide:wrong'))
  await expect.poll(() => whyRedisAway(refused.client) ?? '').toContain('WRONGPASS')
})
