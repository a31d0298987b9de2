// Whether the server is one that Tidegate can follow, with room for it. Pure.
import { identifier } from '../admin/script.ts'
import { countsEveryReader } from '../wal/preflight.ts'
import { failure, ok, setting, shell, unknown, warning } from './checks.ts'
import { sql } from './database-checks.ts'
import type { RoleStanding, ServerFacts } from './database-facts.ts'
import type { Finding } from './finding.ts'

const restart = 'restart Postgres'

/** Has any of these the effect: `name = value`, after `then`. */
const alterSystem = (name: string, value: string | number, then: string | null): ReturnType<typeof sql> =>
  then === null
    ? sql(`ALTER SYSTEM SET ${name} = ${value};\nSELECT pg_reload_conf();`)
    : sql(`ALTER SYSTEM SET ${name} = ${value};`, then)

export function primaryFinding({ inRecovery }: Pick<ServerFacts, 'inRecovery'>): Finding {
  if (!inRecovery) return ok('postgres-primary', 'it is a primary')
  return failure(
    'postgres-primary',
    'it is a standby, or still replays its WAL: no node can lead from there',
    sql('SELECT pg_promote();', 'or let DATABASE_URL lead to the primary'),
    { code: 'DATABASE_STANDBY' },
  )
}

/** @param own slots of this deployment that exist, and whether a leader streams from one */
export function roomFindings(facts: ServerFacts, own: { readonly slots: number; readonly isRead: boolean }): Finding[] {
  const slots = roomFinding('replication-slots', 'max_replication_slots', {
    used: facts.slots,
    most: facts.maxReplicationSlots,
    // A new slot is made beside one that is given up.
    wanted: own.slots === 0 ? 2 : 1,
    isNeeded: own.slots === 0,
  })
  const senders = roomFinding('wal-senders', 'max_wal_senders', {
    used: facts.walSenders,
    most: facts.maxWalSenders,
    // Of the leader that goes and the one that comes, for a moment.
    wanted: own.isRead ? 1 : 2,
    isNeeded: !own.isRead,
  })
  return [slots, senders]
}

interface Room {
  readonly used: number
  readonly most: number
  readonly wanted: number
  readonly isNeeded: boolean
}

function roomFinding(
  check: 'replication-slots' | 'wal-senders',
  name: string,
  { used, most, wanted, isNeeded }: Room,
): Finding {
  const left = Math.max(0, most - used)
  const reason = `${used} of ${name} = ${most} are used, ${left} left`
  if (left >= wanted) return ok(check, reason)
  const judge = left === 0 && isNeeded ? failure : warning
  const need = isNeeded
    ? 'Tidegate needs one, and one beside it for a moment'
    : 'Tidegate needs one more for a moment, when a node or the slot is replaced'
  return judge(check, `${reason}: ${need}`, alterSystem(name, used + wanted, restart), {
    ...(check === 'replication-slots' && left === 0 ? { code: 'SLOT_BLOCKED' } : {}),
  })
}

export function senderTimeoutFinding({ walSenderTimeoutMs }: Pick<ServerFacts, 'walSenderTimeoutMs'>): Finding {
  if (walSenderTimeoutMs > 0)
    return ok('wal-sender-timeout', `wal_sender_timeout is ${walSenderTimeoutMs} ms; the leader's session sets its own`)
  return warning(
    'wal-sender-timeout',
    'wal_sender_timeout is 0: other readers of the WAL that vanish keep their walsender and their slot for ever',
    alterSystem('wal_sender_timeout', "'60s'", null),
  )
}

export function idleSlotFinding({ idleSlotTimeoutS }: Pick<ServerFacts, 'idleSlotTimeoutS'>): Finding {
  if (idleSlotTimeoutS === null) return ok('slot-idle-timeout', 'this server invalidates no slot that rests')
  if (idleSlotTimeoutS === 0) return ok('slot-idle-timeout', 'idle_replication_slot_timeout is 0: never')
  const minutes = idleSlotTimeoutS / 60
  if (minutes >= shortestIdleMinutes)
    return ok(
      'slot-idle-timeout',
      `idle_replication_slot_timeout is ${minutes} min, longer than a deployment may be down`,
    )
  return warning(
    'slot-idle-timeout',
    `idle_replication_slot_timeout is ${minutes} min: while no node runs for so long, the slot is lost and every client starts over`,
    alterSystem('idle_replication_slot_timeout', "'1d'", null),
  )
}

const shortestIdleMinutes = 60

/** @param pool DATABASE_POOL */
export function connectionFindings(facts: ServerFacts, pool: number): Finding[] {
  const { maxConnections, reservedConnections, sessions, ownSessions } = facts
  const open = maxConnections - reservedConnections
  const free = open - sessions
  const found: Finding[] = []
  const limits = [
    { limit: facts.loginConnectionLimit, of: `the login ${facts.login}`, run: `ROLE ${identifier(facts.login)}` },
    {
      limit: facts.databaseConnectionLimit,
      of: `the database ${facts.database}`,
      run: `DATABASE ${identifier(facts.database)}`,
    },
  ]
  for (const { limit, of, run } of limits)
    if (limit !== null && limit < pool)
      found.push(
        failure(
          'connections',
          `${of} may have ${limit} connections, and a node opens DATABASE_POOL=${pool}`,
          sql(`ALTER ${run} CONNECTION LIMIT -1;`),
        ),
      )
  const reason = `max_connections is ${maxConnections}, ${reservedConnections} of it reserved, ${sessions} in use`
  const needed = sessions - ownSessions + pool
  if (open < pool + 1)
    found.push(
      failure(
        'connections',
        `${reason}: too few for DATABASE_POOL=${pool}`,
        alterSystem('max_connections', needed + reservedConnections + spareConnections, restart),
      ),
    )
  else if (free + ownSessions < pool + 1)
    found.push(
      warning(
        'connections',
        `${reason}: not enough left for DATABASE_POOL=${pool}`,
        alterSystem('max_connections', needed + reservedConnections + spareConnections, restart),
      ),
    )
  return found.length > 0 ? found : [ok('connections', `${reason}; a node opens DATABASE_POOL=${pool}`)]
}

/** What a command like this one takes beside. */
const spareConnections = 5

/** @param applicationName of our replication session */
export function standbyFinding(
  { synchronousStandbyNames: names, standbys }: Pick<ServerFacts, 'synchronousStandbyNames' | 'standbys'>,
  applicationName: string,
): Finding {
  if (names === '') return ok('synchronous-standbys', 'synchronous_standby_names is empty')
  const countsAll = countsEveryReader(names)
  const countsOurs = names.toLowerCase().includes(`"${applicationName}"`)
  if (!countsAll && !countsOurs)
    return ok('synchronous-standbys', `synchronous_standby_names is ${names}, which names no reader like this one`)
  const others = standbys.filter(name => name !== applicationName)
  const list = others.map(identifier).join(', ')
  const known = countsAll ? list : names.replaceAll(new RegExp(`"${applicationName}"\\s*,?\\s*`, 'gi'), '')
  // A list that none of them is in is a list that commits wait for.
  const value = others.length === 0 ? '' : countsAll ? names.replace(/"\*"|\*/, () => known) : known
  return failure(
    'synchronous-standbys',
    `synchronous_standby_names is ${names}, which counts readers of the WAL like this one as standbys: a commit would not wait for a real one${others.length === 0 ? ', and none is connected' : ''}`,
    alterSystem('synchronous_standby_names', `'${value.replaceAll("'", "''")}'`, null),
  )
}

/** What a failover slot, as ours is from Postgres 17 on, waits for. */
export function awaitedFinding({ awaitedSlots }: Pick<ServerFacts, 'awaitedSlots'>): Finding {
  if (awaitedSlots.length === 0) return ok('awaited-standbys', 'synchronized_standby_slots is empty, or not known here')
  const away = awaitedSlots.filter(({ isRead }) => !isRead).map(({ slot }) => slot)
  const names = awaitedSlots.map(({ slot }) => slot).join(', ')
  if (away.length === 0) return ok('awaited-standbys', `the standbys of synchronized_standby_slots are there: ${names}`)
  const left = awaitedSlots.filter(({ isRead }) => isRead).map(({ slot }) => slot)
  return failure(
    'awaited-standbys',
    `synchronized_standby_slots is ${names}, and no standby reads ${away.join(', ')}: nothing is sent to anybody until one does. Bring it back, or go on without it:`,
    alterSystem('synchronized_standby_slots', `'${left.join(', ')}'`, null),
  )
}

/** @param roles JWT_ROLES */
export function roleFindings(facts: ServerFacts, roles: readonly string[]): Finding[] {
  const found = facts.roles.flatMap(standing => roleFinding(standing, facts))
  if (found.every(({ check }) => check !== 'roles'))
    found.unshift(ok('roles', `the login ${facts.login} may take ${roles.join(', ')}`))
  const powerful = facts.roles.filter(({ isSuperuser, bypassesRowSecurity }) => isSuperuser || bypassesRowSecurity)
  if (powerful.length === 0) found.push(ok('role-powers', 'row-level security binds each role of JWT_ROLES'))
  for (const { role, isSuperuser } of powerful)
    found.push(
      warning(
        'role-powers',
        `${role} ${isSuperuser ? 'is a superuser' : 'has BYPASSRLS'}: whoever holds a token of this role sees every row of every tracked table`,
        setting(`JWT_ROLES=${roles.filter(each => each !== role).join(',')}`),
        { about: role },
      ),
    )
  return found
}

function roleFinding({ role, exists, isMember }: RoleStanding, { login, versionNumber }: ServerFacts): Finding[] {
  if (isMember) return []
  const withSet = versionNumber >= 160_000 ? ' WITH SET TRUE' : ''
  const grant = `GRANT ${identifier(role)} TO ${identifier(login)}${withSet};`
  const more = { about: role, code: 'ROLE_REFUSED' }
  return exists
    ? [failure('roles', `the login ${login} may not take the role ${role} of JWT_ROLES`, sql(grant), more)]
    : [
        failure(
          'roles',
          `there is no database role ${role}, which JWT_ROLES names`,
          sql(`CREATE ROLE ${identifier(role)} NOLOGIN NOINHERIT;\n${grant}`),
          more,
        ),
      ]
}

export interface ClockReading {
  /** Server minus this machine; right to within half of `roundTripMs`. */
  readonly skewMs: number
  readonly roundTripMs: number
}

/** Tokens expire, and are not valid before, by this machine's clock. */
export function clockFinding({ skewMs, roundTripMs }: ClockReading): Finding {
  const certainMs = Math.max(0, Math.abs(skewMs) - roundTripMs / 2)
  const side = skewMs > 0 ? 'ahead of' : 'behind'
  const reason = `the clock of Postgres is ${Math.round(Math.abs(skewMs))} ms ${side} this machine's (within ${Math.ceil(roundTripMs / 2)} ms)`
  if (certainMs <= 1000) return ok('clock', reason)
  const judge = certainMs > 30_000 ? failure : warning
  const what =
    certainMs > 30_000 ? 'tokens are taken that are over, or refused that are good' : 'lags and times are off'
  return judge('clock', `${reason}: ${what}`, shell('sudo timedatectl set-ntp true', 'on the one that is wrong'))
}

export const clockUnknown = (reason: string): Finding => unknown('clock', reason)
