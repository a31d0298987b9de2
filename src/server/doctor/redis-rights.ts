// Whether the login of REDIS_URL may do what Tidegate does there, found out by doing it with keys of the doctor's own.
import type { RedisClient } from '../redis/redis.ts'

export interface RedisRights {
  /** As ACL knows it. */
  readonly user: string
  /** In small letters; those that it may not run. */
  readonly commands: readonly string[]
  /** Patterns of keys and channels that it may not use: `~{tidegate}:*`, `&{tidegate/*`. */
  readonly patterns: readonly string[]
}

/** What scripts run, with arguments under which nothing comes of it but one key of a minute. */
const inScripts: readonly (readonly string[])[] = [
  ...[
    ['set', 'KEY', 'x', 'px', '60000'],
    ['get', 'KEY'],
    ['setnx', 'KEY', 'x'],
    ['exists', 'KEY'],
    ['persist', 'KEY'],
  ],
  ...[
    ['pexpire', 'KEY', '60000'],
    ['pexpireat', 'KEY', '1'],
    ['pttl', 'KEY'],
    ['unlink', 'KEY'],
    ['del', 'KEY'],
  ],
  ...[
    ['hset', 'KEY', 'f', 'v'],
    ['hsetnx', 'KEY', 'f', 'v'],
    ['hget', 'KEY', 'f'],
    ['hmget', 'KEY', 'f'],
  ],
  ...[
    ['hgetall', 'KEY'],
    ['hdel', 'KEY', 'f'],
    ['sadd', 'KEY', 'm'],
    ['scard', 'KEY'],
    ['srem', 'KEY', 'm'],
  ],
  ...[
    ['spop', 'KEY'],
    ['smembers', 'KEY'],
    ['zadd', 'KEY', '0', 'm'],
    ['zcard', 'KEY'],
    ['zrange', 'KEY', '0', '0'],
  ],
  ...[
    ['zrangebylex', 'KEY', '-', '+'],
    ['zrangebyscore', 'KEY', '0', '0'],
    ['zrem', 'KEY', 'm'],
    ['zpopmin', 'KEY'],
  ],
  ...[
    ['zremrangebyscore', 'KEY', '0', '0'],
    ['xadd', 'KEY', '*', 'b', 'x'],
    ['xlen', 'KEY'],
  ],
  ...[
    ['xrange', 'KEY', '-', '+'],
    ['xrevrange', 'KEY', '-', '+'],
    ['xtrim', 'KEY', 'maxlen', '0'],
    ['del', 'KEY'],
  ],
  ...[['time'], ['info', 'server']],
]

/** The key is deleted after each command: the next one is of another type. */
const tryScript = `
local refused = {}
for i = 1, #ARGV do
  local line = cjson.decode(ARGV[i])
  for j = 2, #line do if line[j] == 'KEY' then line[j] = KEYS[1] end end
  local answer = redis.pcall(unpack(line))
  if type(answer) == 'table' and answer.err then refused[#refused + 1] = line[1] .. ' ' .. answer.err end
  redis.pcall('DEL', KEYS[1])
end
return refused`

/** What nodes send as they are. */
const outside = (key: string): readonly (readonly string[])[] => [
  ...[['ping'], ['time'], ['info', 'server'], ['wait', '0', '1'], ['del', key], ['exists', key]],
  ...[
    ['hset', key, 'f', 'v'],
    ['hgetall', key],
    ['hdel', key, 'f'],
  ],
  ...[
    ['xrange', key, '-', '+', 'COUNT', '1'],
    ['xrevrange', key, '+', '-', 'COUNT', '1'],
  ],
  ...[
    ['xread', 'COUNT', '1', 'STREAMS', key, '0'],
    ['evalsha', '0'.repeat(40), '1', key],
  ],
]

// The words of Redis 6.2 and 7.
const isRefusal = (error: string): boolean => /NOPERM|ACL failure|permissions to|can't (run this|access)/i.test(error)
const isOfKey = (error: string): boolean => /access .*key/i.test(error)
const isOfChannel = (error: string): boolean => /access .*channel/i.test(error)

export interface RightsOptions {
  readonly client: RedisClient
  /** Another connection of the same login: one that listens takes no other commands. */
  readonly listener: RedisClient
  /** TIDEGATE_NAME. */
  readonly name: string
}

/** Of both families of names: what all share, and what each channel has. @throws nothing: what fails otherwise is no refusal */
export async function rightsOf({ client, listener, name }: RightsOptions): Promise<RedisRights> {
  const commands = new Set<string>()
  const patterns = new Set<string>()
  const note = (family: string, command: string, error: string): void => {
    if (!isRefusal(error)) return
    if (isOfChannel(error)) patterns.add(`&${family}`)
    else if (isOfKey(error)) patterns.add(`~${family}`)
    else commands.add(command)
  }
  const attempt = async (family: string, client: RedisClient, line: readonly string[]): Promise<unknown> => {
    const [command, ...values] = line as [string, ...string[]]
    return client.call(command, ...values).catch((error: Error) => note(family, command, error.message))
  }
  const channel = `{${name}/doctor}:live`
  const families = [
    { family: `{${name}}:*`, key: `{${name}}:doctor` },
    { family: `{${name}/*`, key: `{${name}/doctor}:doctor` },
  ]
  for (const { family, key } of families) {
    for (const line of outside(key)) await attempt(family, client, line)
    const lines = inScripts.map(line => JSON.stringify(line))
    const answer = (await attempt(family, client, ['eval', tryScript, '1', key, ...lines])) ?? []
    for (const refused of answer as string[]) {
      const [command = '', error = ''] = refused.split(/ (.*)/s)
      note(family, command, error)
    }
    await client.del(key).catch(() => {})
  }
  // Before Redis 7 there are no sharded ones, and none are used: an unknown command is no refusal.
  for (const command of ['publish', 'spublish']) await attempt(`{${name}/*`, client, [command, channel, ''])
  for (const command of ['subscribe', 'ssubscribe'] as const)
    await listener[command](channel).catch((error: Error) => note(`{${name}/*`, command, error.message))
  const user = await client.call('ACL', 'WHOAMI').catch(() => 'default')
  return { user: String(user), commands: [...commands], patterns: [...patterns] }
}
