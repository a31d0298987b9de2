import { expect, test } from 'vitest'
import { isRedisAway, slotOf } from '../../../src/server/redis/redis.ts'
import { parseRedisUrl, type RedisPlace } from '../../../src/server/redis/redis-url.ts'

const plain = { login: {}, tls: null }

test.each<[string, RedisPlace]>([
  ['redis://cache', { kind: 'standalone', host: 'cache', port: 6379, database: 0, ...plain }],
  [
    'redis://me:p%40ss:w@10.0.0.1:6380/3',
    {
      kind: 'standalone',
      host: '10.0.0.1',
      port: 6380,
      database: 3,
      login: { username: 'me', password: 'p@ss:w' },
      tls: null,
    },
  ],
  [
    'redis://:secret@[::1]:6380/',
    { kind: 'standalone', host: '::1', port: 6380, database: 0, login: { password: 'secret' }, tls: null },
  ],
  ['rediss://cache', { kind: 'standalone', host: 'cache', port: 6379, database: 0, login: {}, tls: {} }],
  [
    'rediss://cache?ssl_cert_reqs=none',
    { kind: 'standalone', host: 'cache', port: 6379, database: 0, login: {}, tls: { rejectUnauthorized: false } },
  ],
  [
    'redis+sentinel://:secret@one,two:26380/main/2?sentinelUsername=me&sentinelPassword=own%3F',
    {
      kind: 'sentinel',
      master: 'main',
      database: 2,
      hosts: [
        { host: 'one', port: 26379 },
        { host: 'two', port: 26380 },
      ],
      login: { password: 'secret' },
      sentinelLogin: { username: 'me', password: 'own?' },
      tls: null,
    },
  ],
  [
    'rediss+cluster://one,two:7001',
    {
      kind: 'cluster',
      hosts: [
        { host: 'one', port: 6379 },
        { host: 'two', port: 7001 },
      ],
      login: {},
      tls: {},
    },
  ],
])('%s leads to where it says', (url, place) => {
  expect(parseRedisUrl(url)).toEqual(place)
})

test.each([
  ['http://cache', 'no such URL'],
  ['redis://', 'no such URL'],
  ['redis://one,two', 'several hosts'],
  ['redis://one:port', 'no host and port'],
  ['redis://one:70000', 'no port'],
  ['redis://one/main', 'no number of a database'],
  ['redis://one?db=1', 'does not take db'],
  ['redis://:secret@one?ssl_ca_certs=/ca.crt', 'does not take ssl_ca_certs without TLS'],
  ['rediss://:secret@one?ssl_ca_certs=/no/such/file', 'the file of ssl_ca_certs cannot be read'],
  ['redis+sentinel://:secret@one:26379', 'no master'],
  ['redis+cluster://:secret@one/1', 'no databases but 0'],
  ['redis://:100%secret@one', '%25'],
])('[P8] %s is refused: %s, and the password is not told', (url, why) => {
  expect(() => parseRedisUrl(url)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }))
  expect(() => parseRedisUrl(url)).toThrow(why)
  expect(() => parseRedisUrl(url)).toThrow(expect.not.objectContaining({ message: expect.stringContaining('secret') }))
})

test.each([
  'Connection is closed.',
  'Command timed out',
  "Stream isn't writeable and enableOfflineQueue options is false",
  "Cluster isn't ready and enableOfflineQueue options is false",
  'Reached the max retries per request limit (which is 0). Refer to "maxRetriesPerRequest" option for details.',
  'Too many Cluster redirections. Last error: ReplyError: TRYAGAIN Multiple keys request during rehashing of slot',
  'connect ECONNREFUSED 127.0.0.1:6379',
  'read ECONNRESET',
  'LOADING Redis is loading the dataset in memory',
  'CLUSTERDOWN Hash slot not served',
  "READONLY You can't write against a read only replica. script: 1b2c, on @user_script:1.",
  "ERR Error running script (call to f_1b2c): @user_script:1: -READONLY You can't write against a read only replica.",
  "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
  'NOREPLICAS Not enough good replicas to write.',
  'UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)',
])('Redis is away, or cannot now: %s', message => {
  expect(isRedisAway(new Error(message))).toBe(true)
})

test.each([
  "OOM command not allowed when used memory > 'maxmemory'.",
  'WRONGTYPE Operation against a key holding the wrong kind of value',
  'ERR The ID specified in XADD is equal or smaller than the target stream top item',
  'NOPERM this user has no permissions',
  'BUSYGROUP Consumer Group name already exists',
  'CROSSSLOT Keys in request do not hash to the same slot',
])('Redis refuses what was asked: %s', message => {
  expect(isRedisAway(new Error(message))).toBe(false)
  expect(isRedisAway(message)).toBe(false)
})

// https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
test('all keys of a hash tag have one slot', () => {
  expect(slotOf('123456789')).toBe(0x31c3)
  expect(slotOf('{user1000}.following')).toBe(slotOf('user1000'))
  expect(slotOf('foo{bar}{zap}')).toBe(slotOf('bar'))
  expect(slotOf('foo{}{bar}')).not.toBe(slotOf('bar'))
})
