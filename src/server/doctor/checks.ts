// Every check of the doctor with the question that it answers. docs/operations/doctor.md is written from here.
import { databaseChecks } from './database-checks.ts'
import type { CheckArea, Finding, Remedy, Verdict } from './finding.ts'

export interface Check {
  readonly area: CheckArea
  /** As a question: `Does a server answer ...?` */
  readonly asks: string
}

const redis = (asks: string): Check => ({ area: 'redis', asks })
const configuration = (asks: string): Check => ({ area: 'configuration', asks })
const machine = (asks: string): Check => ({ area: 'machine', asks })

// biome-ignore format: one check, one line
const otherChecks = {
  'redis-reachable': redis('Does a server answer at REDIS_URL, over TLS if so asked, and let the login in?'),
  'redis-kind': redis('Is it of the kind that the URL says: a server, Sentinels, or a Cluster that has all its slots?'),
  'redis-version': redis('Is it Redis 6.2 or later, and 7.2 or later for RELAY_DURABILITY=aof?'),
  'redis-role': redis('Is it a master? Nothing can be written to a replica.'),
  'redis-rights': redis('May the login run the commands of Tidegate, on its keys and channels? It writes one key of a few bytes, and deletes it at once.'),
  'redis-eviction': redis('Does a full Redis refuse, instead of dropping keys (maxmemory-policy noeviction)?'),
  'redis-memory': redis('Has maxmemory, or else the machine of Redis, room for RELAY_MAX_BYTES and what readers are sent?'),
  'redis-persistence': redis('Does Redis keep what it holds over a restart (appendonly), and did it manage to write it?'),
  'redis-durability': redis('Can Redis confirm what RELAY_DURABILITY asks for?'),
  'redis-replicas': redis('Where replicas may take over: does a master without any stop taking writes (min-replicas-to-write), and has it enough of them now?'),
  'redis-output-buffers': redis('May a reader that is behind be sent what it needs (client-output-buffer-limit)?'),
  'redis-timeout': redis('Does Redis leave quiet connections alone (timeout)?'),
  'redis-clients': redis('Has maxclients room for the connections of more nodes?'),
  'redis-clock': redis('Do the clocks of this machine and of Redis agree?'),
  'redis-latency': redis('Is a round trip short? Every change takes one on its way.'),
  nodes: redis('Do the nodes of this TIDEGATE_NAME run one release, and does one of them, and only one, lead?'),

  option: configuration('Does every option fit, alone and with the others?'),
  'jwt-secret': configuration('Is JWT_SECRET secret: not one that stands in a page or an example?'),
  'jwt-audience': configuration('Does JWT_AUDIENCE keep out tokens that the issuer made for other applications?'),
  jwks: configuration('Does JWT_JWKS_URL answer over https, with keys that fit JWT_ALGORITHMS?'),
  'allowed-origins': configuration('Does ALLOWED_ORIGINS name the pages that may connect, instead of all?'),
  'database-tls': configuration('Is the way to a database on another machine encrypted, and its certificate looked at?'),
  'redis-tls': configuration('Is the way to a Redis on another machine encrypted, and its certificate looked at?'),
  'operator-token': configuration('Is OPERATOR_TOKEN set? Without it there is no inspector, and no orders and explanations over HTTP.'),
  'relay-window': configuration('Is RELAY_MAX_BYTES at least WINDOW_MAX_BYTES? A node fills its window from it.'),
  'drain-time': configuration('Does a node leave within the 30 s after which Kubernetes kills it?'),
  heartbeat: configuration('Is HEARTBEAT_MS below the 60 s after which most proxies cut a quiet connection?'),
  'slot-window': configuration('Is SLOT_MAX_BYTES well above the window that a node without Redis refills from the slot?'),

  'node-version': machine('Is it Node 24 or later?'),
  descriptors: machine('May the process open enough files for MAX_CONNECTIONS?'),
  memory: machine('Has the machine, or its container, memory for what the options let a node hold?'),
  spool: machine('Can large transactions be written to the temporary folder, and has it room?'),
} as const satisfies Record<string, Check>

export const checks = { ...databaseChecks, ...otherChecks } as const satisfies Record<string, Check>

export type CheckName = keyof typeof checks

interface More {
  readonly about?: string | null
  readonly code?: string
}

export const ok = (check: CheckName, reason: string, more: More = {}): Finding =>
  finding(check, 'ok', reason, null, more)

export const warning = (check: CheckName, reason: string, remedy: Remedy | null, more: More = {}): Finding =>
  finding(check, 'warning', reason, remedy, more)

export const failure = (check: CheckName, reason: string, remedy: Remedy | null, more: More = {}): Finding =>
  finding(check, 'failure', reason, remedy, more)

export const unknown = (check: CheckName, reason: string, remedy: Remedy | null = null, more: More = {}): Finding =>
  finding(check, 'unknown', reason, remedy, more)

function finding(check: CheckName, verdict: Verdict, reason: string, remedy: Remedy | null, more: More): Finding {
  return {
    check,
    area: checks[check].area,
    about: more.about ?? null,
    verdict,
    reason,
    remedy,
    code: more.code ?? null,
  }
}

export const shell = (text: string, then: string | null = null): Remedy => ({ kind: 'shell', text, then })
/** @param text an option as a shell takes it: `RELAY_MAX_BYTES=134217728` */
export const setting = (text: string, then: string | null = 'restart every node'): Remedy => ({
  kind: 'setting',
  text,
  then,
})
/** @param text lines for redis-cli */
export const redisCommands = (text: string, then: string | null = null): Remedy => ({ kind: 'redis', text, then })
