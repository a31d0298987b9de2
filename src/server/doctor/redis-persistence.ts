// What Redis keeps: over a restart, on replicas, and what it can confirm of it. Pure.
import type { Config } from '../config/config.ts'
import type { RedisPlace } from '../redis/redis-url.ts'
import { failure, ok, redisCommands, setting, shell, unknown, warning } from './checks.ts'
import type { Finding } from './finding.ts'
import type { RedisServerLook } from './redis-look.ts'
import { changeSettings, numberOf, settingOf } from './redis-settings.ts'

export function persistenceFindings(server: RedisServerLook): Finding[] {
  const { name: about, info } = server
  const folder = settingOf(server, 'dir')
  const disk = `make room on the disk of Redis${folder === null ? '' : ` (${folder})`}, and look into its log`
  const isAof = info.get('aof_enabled') === '1'
  // Redis refuses writes (MISCONF) while a snapshot that it is to make fails.
  const isStopped =
    info.get('rdb_last_bgsave_status') === 'err' &&
    settingOf(server, 'save') !== '' &&
    settingOf(server, 'stop-writes-on-bgsave-error') !== 'no'
  if (isStopped)
    return [
      failure(
        'redis-persistence',
        'the last snapshot (bgsave) failed, and Redis refuses writes because of it (stop-writes-on-bgsave-error)',
        redisCommands('CONFIG SET stop-writes-on-bgsave-error no', `${disk}; then BGSAVE, and set it to yes again`),
        { about, code: 'RELAY_UNREACHABLE' },
      ),
    ]
  if (isAof && info.get('aof_last_write_status') === 'err')
    return [
      failure(
        'redis-persistence',
        'the append-only file could not be written, and Redis refuses writes because of it',
        shell(`df -h ${folder ?? '.'}`, disk),
        { about, code: 'RELAY_UNREACHABLE' },
      ),
    ]
  if (isAof && info.get('aof_last_bgrewrite_status') === 'err')
    return [
      warning(
        'redis-persistence',
        'the append-only file could not be rewritten: it grows until the disk is full',
        redisCommands('BGREWRITEAOF', disk),
        { about },
      ),
    ]
  if (!isAof)
    return [
      warning(
        'redis-persistence',
        'appendonly is no: a Redis that restarts has lost the Stream, and clients of nodes that restart with it start over',
        changeSettings(server, ['appendonly', 'yes']),
        { about },
      ),
    ]
  const fsync = settingOf(server, 'appendfsync')
  if (fsync === 'no')
    return [
      warning(
        'redis-persistence',
        'appendonly is yes, but appendfsync is no: a machine that loses power loses up to half a minute of the Stream, and the slot holds 5 s',
        changeSettings(server, ['appendfsync', 'everysec']),
        { about },
      ),
    ]
  return [ok('redis-persistence', `appendonly is yes${fsync === null ? '' : `, appendfsync is ${fsync}`}`, { about })]
}

export function durabilityFinding(
  server: RedisServerLook,
  { relayDurability }: Pick<Config, 'relayDurability'>,
): Finding {
  const { name: about, info } = server
  const code = 'RELAY_NOT_DURABLE'
  if (relayDurability === 'none')
    return ok('redis-durability', 'RELAY_DURABILITY is none: nothing besides Redis itself is asked', { about })
  if (relayDurability === 'aof') {
    if (info.get('aof_enabled') === '1')
      return ok('redis-durability', 'RELAY_DURABILITY is aof, and appendonly is yes', { about })
    return failure(
      'redis-durability',
      'RELAY_DURABILITY is aof, but appendonly is no: the slot is never acknowledged, and grows to SLOT_MAX_BYTES',
      changeSettings(server, ['appendonly', 'yes']),
      { about, code },
    )
  }
  const replicas = replicasOf(info)
  const good = replicas.filter(({ state, lag }) => state === 'online' && lag <= 10)
  if (good.length > 0)
    return ok('redis-durability', `RELAY_DURABILITY is replica, and ${sayReplicas(good.length)} follow`, { about })
  const found = replicas.length === 0 ? 'Redis has none' : 'none of them keeps up'
  return failure(
    'redis-durability',
    `RELAY_DURABILITY is replica, but ${found}: the slot is never acknowledged, and grows to SLOT_MAX_BYTES`,
    setting('RELAY_DURABILITY=none', 'restart every node; or start a replica (REPLICAOF <host> <port> on it)'),
    { about, code },
  )
}

/** A master that is cut off from its replicas takes writes beside its successor, unless it is told to stop. */
export function replicaFinding(server: RedisServerLook, kind: RedisPlace['kind']): Finding {
  const { name: about, info } = server
  if (info.get('role') === 'slave') return ok('redis-replicas', 'it is a replica itself', { about })
  const count = numberOf(info.get('connected_slaves')) ?? 0
  const least = numberOf(settingOf(server, 'min-replicas-to-write'))
  // Redis counts them only where a number is set.
  const good = numberOf(info.get('min_slaves_good_slaves'))
  if (least !== null && least > 0 && good !== null && good < least)
    return failure(
      'redis-replicas',
      `min-replicas-to-write is ${least}, and ${sayReplicas(good)} keep up: Redis refuses writes (NOREPLICAS)`,
      changeSettings(server, ['min-replicas-to-write', String(good)]),
      { about, code: 'RELAY_UNREACHABLE' },
    )
  if (count === 0 && kind === 'standalone')
    return ok('redis-replicas', 'it has no replicas, and none takes over', { about })
  if (count === 0)
    return warning(
      'redis-replicas',
      'the master has no replica now: if it dies, nothing takes over',
      shell('redis-cli REPLICAOF <host> <port>', 'on a server that is to be its replica'),
      { about },
    )
  if (least === null)
    return unknown(
      'redis-replicas',
      `it has ${sayReplicas(count)}; the login may not read min-replicas-to-write`,
      redisCommands('CONFIG GET min-replicas-to-write', 'as a user that may'),
      { about },
    )
  if (least > 0)
    return ok('redis-replicas', `it has ${sayReplicas(count)}, and min-replicas-to-write is ${least}`, { about })
  return warning(
    'redis-replicas',
    `it has ${sayReplicas(count)}, and min-replicas-to-write is 0: behind a cut network it goes on beside its successor, and what it took is lost`,
    changeSettings(server, ['min-replicas-to-write', '1'], ['min-replicas-max-lag', '10']),
    { about },
  )
}

interface Replica {
  readonly state: string
  /** Seconds since it was heard. */
  readonly lag: number
}

/** `slave0:ip=127.0.0.1,port=6380,state=online,offset=42,lag=1` */
export const replicasOf = (info: ReadonlyMap<string, string>): readonly Replica[] =>
  [...info]
    .filter(([name]) => /^slave\d+$/.test(name))
    .map(([, text]) => ({
      state: /(?:^|,)state=([^,]*)/.exec(text)?.[1] ?? '',
      lag: Number(/(?:^|,)lag=(\d+)/.exec(text)?.[1] ?? Number.POSITIVE_INFINITY),
    }))

const sayReplicas = (count: number): string => (count === 1 ? 'one replica' : `${count || 'no'} replicas`)
