// What the doctor says of a Redis that answers. Pure.
import type { Config } from '../config/config.ts'
import type { LivingNode } from '../nodes/node-state.ts'
import { versionRefusal } from '../redis/redis-ready.ts'
import type { RedisPlace } from '../redis/redis-url.ts'
import { failure, ok, redisCommands, setting, shell, unknown, warning } from './checks.ts'
import type { Finding } from './finding.ts'
import type { RedisLook, RedisServerLook } from './redis-look.ts'
import { bufferFindings, memoryFindings } from './redis-memory.ts'
import { durabilityFinding, persistenceFindings, replicaFinding } from './redis-persistence.ts'
import type { RedisRights } from './redis-rights.ts'
import { changeSettings, numberOf, settingOf } from './redis-settings.ts'
import { placeOfHost, type RedisWay, redisUrlTo } from './redis-words.ts'

export type RedisNeeds = Pick<Config, 'relayMaxBytes' | 'relayDurability' | 'tidegateName'>

export function judgeRedis(look: RedisLook, needs: RedisNeeds, way: RedisWay): Finding[] {
  return [...look.servers.flatMap(server => judgeServer(server, look, needs, way)), ...nodeFindings(look.nodes, needs)]
}

function judgeServer(server: RedisServerLook, look: RedisLook, needs: RedisNeeds, way: RedisWay): Finding[] {
  const nodes = Math.max(1, look.nodes?.length ?? 1)
  const { place } = way
  return [
    versionFinding(server, needs),
    ...kindFindings(server, place),
    roleFinding(server, way),
    evictionFinding(server),
    ...(server.holdsJournal ? memoryFindings(server, needs, nodes) : []),
    ...persistenceFindings(server),
    ...(server.holdsJournal ? [durabilityFinding(server, needs)] : []),
    replicaFinding(server, place.kind),
    ...bufferFindings(server),
    timeoutFinding(server),
    clientsFinding(server),
    clockFinding(server),
    latencyFinding(server),
  ]
}

function versionFinding({ name: about, info }: RedisServerLook, { relayDurability }: RedisNeeds): Finding {
  const version = (info.get('redis_version') ?? '0').trim()
  const refusal = versionRefusal(version, relayDurability === 'aof')
  if (refusal === null) return ok('redis-version', `Redis is ${version}`, { about })
  const isOnlyForAof = versionRefusal(version, false) === null
  const remedy = isOnlyForAof
    ? setting('RELAY_DURABILITY=none', 'restart every node; or upgrade Redis to 7.2 or later')
    : shell('apt-get install --only-upgrade redis-server', 'or run a later image: docker run redis:7')
  return failure('redis-version', refusal.message, remedy, { about, code: 'REDIS_VERSION' })
}

function kindFindings({ name: about, cluster }: RedisServerLook, place: RedisPlace): Finding[] {
  if (place.kind === 'standalone') return [ok('redis-kind', 'REDIS_URL leads to one server', { about })]
  if (place.kind === 'sentinel') return [ok('redis-kind', `Sentinels name the master of "${place.master}"`, { about })]
  if (cluster === null) return []
  if (cluster.state === 'ok') return [ok('redis-kind', `the Cluster serves all ${cluster.slots} slots`, { about })]
  const [host] = place.hosts
  return [
    failure(
      'redis-kind',
      `the Cluster's state is ${cluster.state}: ${cluster.slots} of 16384 slots are served, and it refuses commands`,
      shell(`redis-cli --cluster fix ${host!.host}:${host!.port}`, 'bring back the members that are away first'),
      { about, code: 'RELAY_UNREACHABLE' },
    ),
  ]
}

function roleFinding({ name: about, info }: RedisServerLook, way: RedisWay): Finding {
  if (info.get('role') !== 'slave') return ok('redis-role', 'it is a master', { about })
  const master = `${info.get('master_host')}:${info.get('master_port')}`
  return failure(
    'redis-role',
    `REDIS_URL leads to a replica of ${master}, where nothing can be written`,
    setting(
      `REDIS_URL=${redisUrlTo(way, placeOfHost(info.get('master_host')!, Number(info.get('master_port'))))}`,
      'restart every node; or name its Sentinels, which know the master after a failover too',
    ),
    { about, code: 'RELAY_UNREACHABLE' },
  )
}

function evictionFinding(server: RedisServerLook): Finding {
  const about = server.name
  const policy = server.info.get('maxmemory_policy')
  if (policy === undefined) return unknown('redis-eviction', 'INFO says nothing of maxmemory_policy', null, { about })
  if (policy === 'noeviction') return ok('redis-eviction', 'maxmemory-policy is noeviction', { about })
  return warning(
    'redis-eviction',
    `maxmemory-policy is ${policy}: Redis may drop keys of Tidegate, and clients would start over`,
    changeSettings(server, ['maxmemory-policy', 'noeviction']),
    { about },
  )
}

/** The quietest connections say something every second, or wait in Redis, which counts as no quiet. */
const leastTimeoutSeconds = 30

function timeoutFinding(server: RedisServerLook): Finding {
  const about = server.name
  const seconds = numberOf(settingOf(server, 'timeout'))
  if (seconds === null) return notReadable('redis-timeout', server, 'timeout')
  if (seconds === 0) return ok('redis-timeout', 'timeout is 0: connections are never cut for being quiet', { about })
  if (seconds >= leastTimeoutSeconds) return ok('redis-timeout', `timeout is ${seconds} s, which is enough`, { about })
  return warning(
    'redis-timeout',
    `timeout is ${seconds} s: a connection that is quiet for so long is cut, and made anew`,
    changeSettings(server, ['timeout', '0']),
    { about },
  )
}

/** client, reader and listener; of each node that comes, and of one that is replaced. */
const connectionsOfNode = 3
const nodesToCome = 10

function clientsFinding(server: RedisServerLook): Finding {
  const about = server.name
  const most = numberOf(server.info.get('maxclients') ?? settingOf(server, 'maxclients'))
  const now = numberOf(server.info.get('connected_clients'))
  if (most === null || now === null) return notReadable('redis-clients', server, 'maxclients')
  const left = most - now
  const reason = `${now} of maxclients ${most} are connected, which leaves ${left}; a node takes ${connectionsOfNode}`
  const wished = connectionsOfNode * nodesToCome
  if (left >= wished) return ok('redis-clients', reason, { about })
  const remedy = changeSettings(server, ['maxclients', String(now + 2 * wished)])
  return (left < connectionsOfNode ? failure : warning)('redis-clients', reason, remedy, { about })
}

const mostAheadMs = 2000

function clockFinding({ name: about, aheadMs, aheadWithinMs }: RedisServerLook): Finding {
  if (aheadMs === null) return unknown('redis-clock', 'the login may not run TIME', null, { about })
  const isSure = Math.abs(aheadMs) - aheadWithinMs > mostAheadMs
  const words = `${(Math.abs(aheadMs) / 1000).toFixed(1)} s ${aheadMs > 0 ? 'ahead of' : 'behind'} this machine's`
  if (!isSure) return ok('redis-clock', `the clock of Redis is ${words}`, { about })
  return warning(
    'redis-clock',
    `the clock of Redis is ${words}: what is told of ages and times is wrong by as much`,
    shell('timedatectl set-ntp true', 'on this machine, and on that of Redis'),
    { about },
  )
}

const slowMs = 10

function latencyFinding({ name: about, roundTripMs }: RedisServerLook): Finding {
  const words = `a round trip to Redis takes ${roundTripMs.toFixed(roundTripMs < 10 ? 2 : 0)} ms`
  if (roundTripMs <= slowMs) return ok('redis-latency', words, { about })
  return warning(
    'redis-latency',
    `${words}, and every change takes one on its way to clients`,
    shell('redis-cli SLOWLOG GET 10', 'run Redis beside the nodes, in the same zone; look at what else keeps it busy'),
    { about },
  )
}

/** @param rights as `rightsOf` found them */
export function rightsFinding(
  { user, commands, patterns }: RedisRights,
  info: ReadonlyMap<string, string> | null,
): Finding {
  if (commands.length + patterns.length === 0)
    return ok('redis-rights', `"${user}" may run what Tidegate runs, on its keys and channels`)
  const missing = [
    ...(commands.length === 0 ? [] : [`run ${commands.join(', ')}`]),
    ...(patterns.length === 0 ? [] : [`use ${patterns.join(', ')}`]),
  ]
  const grant = `ACL SETUSER ${user} ${[...patterns, ...commands.map(command => `+${command}`)].join(' ')}`
  const isKept = (info?.get('config_file') ?? '') !== ''
  return failure(
    'redis-rights',
    `the login "${user}" may not ${missing.join(', nor ')}`,
    redisCommands(
      grant,
      `as a user that may; ${isKept ? 'then CONFIG REWRITE, or ACL SAVE where there is an aclfile' : 'and write it where its users are kept'}`,
    ),
    { about: user },
  )
}

function nodeFindings(nodes: readonly LivingNode[] | null, { tidegateName }: RedisNeeds): Finding[] {
  if (nodes === null) return [unknown('nodes', 'the list of nodes cannot be read')]
  if (nodes.length === 0) return [ok('nodes', `no node runs under the name ${tidegateName}`)]
  const list = nodes.map(({ address, release }) => `${address} (${release})`).sort()
  const releases = new Set(nodes.map(({ release }) => release))
  const leaders = nodes.filter(({ leads }) => leads)
  if (releases.size > 1)
    return [
      warning(
        'nodes',
        `nodes of ${releases.size} releases run under the name ${tidegateName}: ${list.join(', ')}; that is as it should be only while they are replaced`,
        shell('npm install tidegate@latest', 'on each of them, and restart it'),
      ),
    ]
  if (leaders.length === 1) return [ok('nodes', `${list.join(', ')}; ${leaders[0]!.address} leads`)]
  if (leaders.length === 0)
    return [
      warning(
        'nodes',
        `none of the nodes leads: ${list.join(', ')}`,
        shell('tidegate doctor', 'again in ten seconds; if none leads then, their logs say what they wait for'),
      ),
    ]
  return [
    failure(
      'nodes',
      `${leaders.length} nodes lead under the name ${tidegateName}: ${leaders.map(({ address }) => address).join(', ')}; each follows another database, and they take each other's places`,
      setting(
        `TIDEGATE_NAME=${tidegateName}_2`,
        'on the nodes of one of the databases; then tidegate migrate there, and restart them',
      ),
    ),
  ]
}

function notReadable(
  check: 'redis-timeout' | 'redis-clients',
  { name: about }: RedisServerLook,
  what: string,
): Finding {
  return unknown(check, `the login may not read ${what}`, redisCommands(`CONFIG GET ${what}`, 'as a user that may'), {
    about,
  })
}
