// Several sessions for one slot: who streams, who waits, and what Postgres's log says of it.
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { LocalPostgres } from '../../../src/cli/local-postgres.ts'
import { formatLsn } from '../../../src/server/wal/lsn.ts'
import { FaultyLink } from '../../support/faulty-link.ts'
import { expectWithin } from '../../support/within.ts'
import { confirmedFlush, query, Reader, schema } from './reader.ts'

let server: LocalPostgres

beforeAll(async () => {
  server = await LocalPostgres.create({ settings: { fsync: 'off', log_min_messages: 'warning' } })
  await server.start()
  await query(server.url, schema)
})

afterAll(() => server?.stop())

afterEach(async () => {
  await Reader.untilTrue(async () => (await senders()).length === 0)
  await query(server.url, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots`)
})

const senders = () =>
  query<{ pid: number }>(server.url, "SELECT pid FROM pg_stat_replication WHERE application_name = 'tidegate wal'")

/** Lines of the server's log that speak of a problem. LOG is told at any level. */
const isComplaint = (line: string): boolean => /\b(WARNING|ERROR|FATAL|PANIC):/.test(line)

/** A node, over a link of its own, that follows wherever it does not lead. */
async function node(options: Partial<ConstructorParameters<typeof Reader>[0]> = {}) {
  const link = await FaultyLink.to(server.url)
  const reader = new Reader({ databaseUrl: link.url, mayLead: async () => true, ...options })
  const stop = async (): Promise<void> => {
    await reader.stop()
    await link[Symbol.asyncDispose]()
  }
  return { reader, link, stop, [Symbol.asyncDispose]: stop }
}

test('[P4] three nodes whose leaders go in turn: another takes over each time, and the log has no line about the slot', async () => {
  const logged = server.log.length
  const nodes = await Promise.all([node(), node(), node()])
  // Far enough away that the others look while one connects.
  for (const { link } of nodes) link.delayMs = 40
  let written = 0
  /** Who streams the newest commit, alone. */
  const leader = async () => {
    const body = `turn ${written++}`
    await query(server.url, `INSERT INTO notes VALUES ('${body}')`)
    await Reader.untilTrue(() => nodes.some(({ reader }) => reader.rows.includes(body)))
    expect(await senders()).toHaveLength(1)
    return nodes.find(({ reader }) => reader.rows.includes(body))!
  }
  try {
    await Reader.untilTrue(() => nodes.some(({ reader }) => reader.lives.length > 0))
    let leading = await leader()
    for (let turn = 0; turn < 4; turn++) {
      leading.link.cut()
      await Reader.untilTrue(() => leading.reader.ends.length > 0)
      const next = await leader()
      // Whoever has just lost it lets those in line go first.
      expect(next).not.toBe(leading)
      leading.reader.ends.length = 0
      leading = next
    }
    await leading.stop()
    const last = await leader()
    expect(last).not.toBe(leading)
  } finally {
    for (const each of nodes) await each.stop()
  }
  expect(server.log.slice(logged).filter(isComplaint)).toEqual([])
})

test('a node that follows is told of once, as what it is, and asks for nothing', async () => {
  await using first = await node()
  await first.reader.until(() => first.reader.lives.length === 1)
  await using second = await node()
  await second.reader.until(() => second.reader.logged.some(line => line.text.startsWith('another node leads')))
  expect(second.reader.logged.filter(({ level }) => level === 'warn')).toEqual(
    first.reader.logged.filter(({ level }) => level === 'warn'),
  )
  expect(await senders()).toHaveLength(1)
})

test('a node that may not lead leaves the slot to others until it may', async () => {
  let may = false
  await using reluctant = await node({ mayLead: async () => may })
  await using other = await node()
  await other.reader.until(() => other.reader.lives.length === 1)
  await other.stop()
  await Reader.untilTrue(async () => (await senders()).length === 0)
  expect(reluctant.reader.lives).toEqual([])
  may = true
  await reluctant.reader.until(() => reluctant.reader.lives.length === 1)
})

test('[P4] a leader whose journal fails lets go of the slot, and does not take it back before it may lead', async () => {
  let asked = 0
  let may = true
  const mayLead = async (): Promise<boolean> => {
    asked += 1
    return may
  }
  await using failing = await node({
    mayLead,
    onGulp: () => (may ? undefined : Promise.reject(new Error('no journal'))),
  })
  await failing.reader.until(() => failing.reader.lives.length === 1)
  may = false
  await query(server.url, "INSERT INTO notes VALUES ('not stored')")
  await failing.reader.until(() => failing.reader.ends.length === 1)
  await Reader.untilTrue(async () => (await senders()).length === 0)
  const askedThen = asked
  await failing.reader.until(() => asked > askedThen + 2, 'it is asked again and again')
  expect(failing.reader.lives).toHaveLength(1)
  // What was not acknowledged comes to whoever leads next.
  await using next = await node()
  await next.reader.until(() => next.reader.rows.includes('not stored'))
})

test('[P4] a leader without a sign of life is ended once, and says so; one that is alive and busy never is', async () => {
  await using leader = await node()
  await leader.reader.until(() => leader.reader.lives.length === 1)
  const [{ pid } = { pid: 0 }] = await senders()
  let silentMs: number | null = 3999
  await using waiting = await node({ leaderSilentMs: () => silentMs, name: 'tidegate' })
  await waiting.reader.until(() => waiting.reader.logged.some(line => line.text.startsWith('another node leads')))
  const since = performance.now()
  await Reader.untilTrue(() => performance.now() - since > 4500)
  expect(await senders()).toEqual([{ pid }])
  // What a node remembers that was asleep itself is no word about the leader: only what it has waited through counts.
  waiting.link.freeze()
  const asleepSince = performance.now()
  await Reader.untilTrue(() => performance.now() - asleepSince > 2500)
  silentMs = 3_600_000
  waiting.link.thaw()
  const awakeSince = performance.now()
  await Reader.untilTrue(() => performance.now() - awakeSince > 1500)
  expect(await senders()).toEqual([{ pid }])
  await waiting.reader.until(() => waiting.reader.lives.length === 1)
  expect(waiting.reader.logged.filter(line => line.code === 'LEADER_SILENT')).toHaveLength(1)
  expect(leader.reader.ends).toEqual(['DATABASE_UNREACHABLE'])
  // The one that was ended waits in line, and sees a leader that is alive.
  await query(server.url, "INSERT INTO notes VALUES ('after')")
  await waiting.reader.until(() => waiting.reader.rows.includes('after'))
  expect(await senders()).toHaveLength(1)
})

test('[P4] a node that ends has its last acknowledgement heard, also with much unread, and the next leads within its poll', async () => {
  const logged = server.log.length
  await using leader = await node({ maxPendingBytes: 2 ** 20 })
  await leader.reader.until(() => leader.reader.lives.length === 1)
  await query(server.url, "INSERT INTO notes VALUES ('first')")
  await leader.reader.until(() => leader.reader.rows.includes('first'))
  await using next = await node()
  await next.reader.until(() => next.reader.logged.some(line => line.text.startsWith('another node leads')))
  const open = Promise.withResolvers<void>()
  leader.reader.gate = open.promise
  await query(server.url, "INSERT INTO notes SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
  await leader.reader.until(() => (leader.reader.life.stream as unknown as { isStalled: boolean }).isStalled)
  const { endLsn } = leader.reader.commits.find(({ rows }) => rows.includes('first'))!
  leader.reader.life.stream.acknowledge(endLsn)
  const stopping = leader.reader.stop()
  open.resolve()
  const stoppedAt = performance.now()
  await next.reader.until(() => next.reader.lives.length === 1)
  expectWithin(performance.now() - stoppedAt, 1500)
  await stopping
  expect(next.reader.life.slot.confirmedFlushLsn).toBe(endLsn)
  expect(await confirmedFlush(server.url)).toBe(formatLsn(endLsn))
  const lines = server.log.slice(logged)
  expect(lines.filter(line => line.includes('unexpected EOF on standby connection') || isComplaint(line))).toEqual([])
})

test('[P4] a node that waits goes on waiting while the database restarts, and takes over when it is its turn', async () => {
  await using leader = await node()
  await leader.reader.until(() => leader.reader.lives.length === 1)
  await using waiting = await node()
  await waiting.reader.until(() => waiting.reader.logged.some(line => line.text.startsWith('another node leads')))
  await server.halt('fast')
  await waiting.reader.until(() => waiting.reader.logged.some(line => line.code === 'DATABASE_UNREACHABLE'))
  await server.start()
  await query(server.url, "INSERT INTO notes VALUES ('after the restart')")
  await Reader.untilTrue(() => [leader, waiting].some(({ reader }) => reader.rows.includes('after the restart')))
  await leader.stop()
  await query(server.url, "INSERT INTO notes VALUES ('after that')")
  await waiting.reader.until(() => waiting.reader.rows.includes('after that'))
})

test.each(['made here', 'of an earlier release'])('[P4] a slot %s is one that standbys may keep', async origin => {
  if (origin !== 'made here')
    await query(server.url, "SELECT pg_create_logical_replication_slot('tidegate_0a1b2c3d', 'pgoutput')")
  await using only = await node()
  await only.reader.until(() => only.reader.lives.length === 1)
  expect(only.reader.life.slot.created).toBe(origin === 'made here')
  expect(await query(server.url, 'SELECT failover FROM pg_replication_slots')).toEqual([{ failover: true }])
  expect(only.reader.logged.filter(line => line.text.includes('no standby keeps'))).toEqual([])
})
