// Whether Redis has room for the journal, and for what readers are sent. The formula is that of docs/operations.md, "Memory". Pure.
import type { Config } from '../config/config.ts'
import { failure, ok, redisCommands, setting, unknown, warning } from './checks.ts'
import type { Finding } from './finding.ts'
import type { RedisServerLook } from './redis-look.ts'
import { changeSettings, numberOf, settingOf } from './redis-settings.ts'

const MiB = 1024 * 1024

/** Redis takes more than the bytes in the Stream: its allocator rounds up. */
const overhead = 1.25
/** After a large commit or a burst, for moments. */
const burst = 4
/** What a reader that is behind is sent at a time: 32 blocks of 256 KiB. */
const readBytes = 8 * MiB
const besidesBytes = 64 * MiB

type Needs = Pick<Config, 'relayMaxBytes'>

/** What maxmemory should be. @param nodes that read */
export const neededRedisBytes = ({ relayMaxBytes }: Needs, nodes: number): number =>
  Math.ceil(burst * relayMaxBytes * overhead) + readBytes * nodes + besidesBytes

/** Below it the Stream cannot reach RELAY_MAX_BYTES. */
const leastBytes = ({ relayMaxBytes }: Needs, nodes: number): number =>
  Math.ceil(relayMaxBytes * overhead) + readBytes * nodes + besidesBytes

export function memoryFindings(server: RedisServerLook, needs: Needs, nodes: number): Finding[] {
  const about = server.name
  const limit = numberOf(server.info.get('maxmemory'))
  const machine = numberOf(server.info.get('total_system_memory'))
  const used = numberOf(server.info.get('used_memory')) ?? 0
  if (limit === null) return [unknown('redis-memory', 'INFO says nothing of maxmemory', null, { about })]
  const needed = neededRedisBytes(needs, nodes)
  const why = `RELAY_MAX_BYTES ${needs.relayMaxBytes} and ${nodes} ${nodes === 1 ? 'node' : 'nodes'} take ${mebibytes(needed)}`
  if (limit === 0) {
    if (machine === null || machine >= needed)
      return [
        ok('redis-memory', `maxmemory is not set, and the machine has ${mebibytes(machine ?? 0)}; ${why}`, { about }),
      ]
    return [
      warning(
        'redis-memory',
        `maxmemory is not set, and the machine of Redis has ${mebibytes(machine)}; ${why}: the kernel would end it`,
        setting(`RELAY_MAX_BYTES=${fittingBytes(machine, nodes)}`, 'restart every node; or give Redis more memory'),
        { about, code: 'RELAY_FULL' },
      ),
    ]
  }
  const raise = changeSettings(server, ['maxmemory', String(Math.ceil(needed / MiB) * MiB)])
  if (limit < needed)
    return [
      (limit < leastBytes(needs, nodes) ? failure : warning)(
        'redis-memory',
        `maxmemory is ${mebibytes(limit)}; ${why}: past it Redis refuses what is to be stored, and clients are told stale`,
        raise,
        { about, code: 'RELAY_FULL' },
      ),
    ]
  if (used > 0.9 * limit)
    return [
      warning(
        'redis-memory',
        `${mebibytes(used)} of maxmemory ${mebibytes(limit)} are used, also by others`,
        changeSettings(server, ['maxmemory', String(Math.ceil((used + needed) / MiB) * MiB)]),
        { about, code: 'RELAY_FULL' },
      ),
    ]
  return [ok('redis-memory', `maxmemory is ${mebibytes(limit)}; ${why}`, { about })]
}

/** RELAY_MAX_BYTES for which a machine of so many bytes does. */
function fittingBytes(bytes: number, nodes: number): number {
  const rest = (bytes - readBytes * nodes - besidesBytes) / (burst * overhead)
  return Math.max(MiB, Math.floor(rest / MiB) * MiB)
}

/** `normal`: one that reads the journal, 8 MiB at a time; with as much again, since Redis counts what is in the socket too.
 *  `pubsub`: one that hears channels. */
const leastHardBytes = 16 * MiB
const leastSoftBytes = 8 * MiB

/** Classes as CONFIG GET answers them: `normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60`. */
export function bufferFindings(server: RedisServerLook): Finding[] {
  const about = server.name
  const text = settingOf(server, 'client-output-buffer-limit')
  if (text === null)
    return [
      unknown(
        'redis-output-buffers',
        'the login may not read client-output-buffer-limit',
        redisCommands('CONFIG GET client-output-buffer-limit', 'as a user that may'),
        { about },
      ),
    ]
  const classes = [...text.matchAll(/(normal|pubsub) (\d+) (\d+) (\d+)/g)].map(([, name, hard, soft, seconds]) => ({
    name: name!,
    hard: Number(hard),
    soft: Number(soft),
    seconds: Number(seconds),
  }))
  const small = classes.filter(
    ({ hard, soft }) => (hard > 0 && hard < leastHardBytes) || (soft > 0 && soft < leastSoftBytes),
  )
  const words = (all: typeof classes): string =>
    all.map(({ name, hard, soft, seconds }) => `${name} ${hard} ${soft} ${seconds}`).join(', ')
  if (small.length === 0)
    return [ok('redis-output-buffers', `client-output-buffer-limit is ${words(classes)}`, { about })]
  const wide: Readonly<Record<string, string>> = { normal: '"normal 0 0 0"', pubsub: '"pubsub 33554432 8388608 60"' }
  return [
    warning(
      'redis-output-buffers',
      `client-output-buffer-limit is ${words(small)}: a node that is behind is sent 8 MiB at a time, and would be cut off again and again`,
      changeSettings(server, ...small.map(({ name }) => ['client-output-buffer-limit', wide[name]!] as const)),
      { about },
    ),
  ]
}

const mebibytes = (bytes: number): string => `${Math.ceil(bytes / MiB)} MiB`
