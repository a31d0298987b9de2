// Does to the deployment what was drawn, and makes it good again.
import { rm } from 'node:fs/promises'
import pg from 'pg'
import { parseLsn } from '../../src/server/wal/lsn.ts'
import type { Client } from '../checker/client.ts'
import type { Cluster } from '../checker/cluster.ts'
import type { Random } from '../checker/random.ts'
import { dropSlot } from '../checker/slot-loss.ts'
import { standby } from '../checker/writers.ts'
import type { FaultyLink } from '../support/faulty-link.ts'
import type { RedisProcess } from '../support/redis-process.ts'
import type { Fault, LinkTo, Whom } from './faults.ts'
import type { TorturedNode, TorturedNodes } from './nodes.ts'

export interface Victims {
  readonly nodes: TorturedNodes
  readonly cluster: Cluster
  /** Null: one node with its window in its own memory. */
  readonly redis: RedisProcess | null
  /** Those who read. */
  readonly crowd: {
    readonly checked: readonly { readonly client: Pick<Client, 'connected' | 'paused' | 'pause' | 'goOn'> }[]
  }
  readonly databaseUrl: string
  /** Redis is down, and comes back with less than it had. @param savedAt performance.now(), when it held that; null: nothing */
  redisLoses(savedAt: number | null): Promise<void>
}

/** What is hurt already is left alone until it is well: each of these by one fault at a time. */
type Part = string

export interface Wound {
  /** The node that it befalls; null when it is no node's alone. */
  readonly node: TorturedNode | null
  /** Whether all clients feel it, and not only those of the node. */
  readonly isShared: boolean
  /** Does it. Resolves when it is made good again. */
  inflict(): Promise<void>
}

export class Tormentor {
  readonly #victims: Victims
  readonly #taken = new Set<Part>()
  #waiting: (() => void)[] = []

  constructor(victims: Victims) {
    this.#victims = victims
  }

  /** @param random for what the fault leaves open @returns null when what it would befall is hurt already */
  async prepare(fault: Fault, random: Random): Promise<Wound | null> {
    const { nodes, cluster, redis, databaseUrl, crowd } = this.#victims
    switch (fault.what) {
      case 'node killed':
        return this.#ofNode(fault.whom, async node => {
          await node.kill()
          await sleep(fault.forMs)
          await node.start()
        })
      case 'node stopped':
        return this.#ofNode(fault.whom, async node => {
          node.stop()
          await sleep(fault.forMs)
          node.goOn()
        })
      case 'clock jumped':
        return this.#ofNode(
          fault.whom,
          async node => {
            await node.setClock(fault.offsetMs)
            await sleep(fault.forMs)
            await node.setClock(0)
          },
          'clock',
        )
      case 'connections cut':
        return this.#ofLink(fault.whom, fault.to, async link => {
          link.cut(someOf(random, fault.share))
        })
      case 'connections black-holed':
        return this.#ofLink(fault.whom, fault.to, async link => {
          const { carrying } = fault
          if (carrying !== undefined) link.freeze(fault.ways, opening => opening.includes(carrying))
          else if (fault.share === 1) link.isolate(fault.ways)
          else link.freeze(fault.ways, someOf(random, fault.share))
          await sleep(fault.forMs)
          link.thaw()
        })
      case 'connections half open':
        return this.#ofLink(fault.whom, fault.to, async link => {
          link.leaveHalfOpen(fault.gone, someOf(random, fault.share))
          await sleep(fault.forMs)
          link.thaw()
        })
      case 'readers slow':
        return this.#of(['readers'], false, async () => {
          const slow = crowd.checked
            .map(({ client }) => client)
            .filter(client => client.connected && random.next() < fault.share)
          for (const client of slow) client.pause()
          await sleep(fault.forMs)
          for (const client of slow) if (client.paused) client.goOn()
        })
      case 'commits stalled':
        return this.#of(['postgres'], true, () => stallCommits(databaseUrl, fault.forMs))
      case 'postgres':
        return this.#of(['postgres'], true, () => cluster.crash(fault.how, random))
      case 'slot dropped':
        return this.#of(['postgres'], true, () => dropSlot(databaseUrl, true))
      case 'redis stopped':
        return this.#of(['redis'], true, async () => {
          redis!.pause()
          await sleep(fault.forMs)
          redis!.resume()
        })
      case 'redis restarted':
        return this.#of(['redis'], true, async () => {
          await redis!.kill()
          await sleep(fault.forMs)
          await redis!.start()
        })
      case 'redis emptied':
        return this.#of(['redis'], true, async () => {
          await redis!.kill()
          await this.#victims.redisLoses(null)
          await sleep(fault.forMs)
          await redis!.start('empty')
        })
      case 'redis rolled back':
        return this.#of(['redis'], true, async () => {
          const savedAt = performance.now()
          const copy = await redis!.save()
          await sleep(fault.byMs)
          await redis!.kill()
          await this.#victims.redisLoses(savedAt)
          await sleep(fault.forMs)
          await redis!.start(copy)
          await rm(copy.folder, { recursive: true })
        })
      case 'rolling deploy':
        return this.#of(['deployment'], true, async () => {
          for (const node of [...nodes.all]) {
            await this.#untilFree(node.name)
            this.#taken.add(node.name)
            await node.drain()
            await node.start()
            this.#free([node.name])
          }
        })
      case 'node joined':
        return this.#of(['deployment'], false, async () => {
          const node = await nodes.join()
          await sleep(fault.forMs)
          await this.#untilFree(node.name)
          this.#taken.add(node.name)
          await nodes.leave(node)
          this.#free([node.name])
        })
    }
  }

  async #ofNode(whom: Whom, work: (node: TorturedNode) => Promise<void>, what = ''): Promise<Wound | null> {
    const { nodes } = this.#victims
    const leader = await nodes.leader()
    const node =
      whom === 'leader'
        ? leader
        : whom === 'follower'
          ? nodes.all.find(each => each !== leader)
          : nodes.all[Math.floor(whom * nodes.all.length)]
    if (node === null || node === undefined || !node.isUp) return null
    const wound = this.#of([`${node.name}${what}`], node === leader, () => work(node))
    return wound === null ? null : { ...wound, node }
  }

  async #ofLink(whom: Whom, to: LinkTo, work: (link: FaultyLink) => Promise<void>): Promise<Wound | null> {
    return this.#ofNode(
      whom,
      node => work(to === 'clients' ? node.toClients : to === 'postgres' ? node.toPostgres : node.toRedis!),
      ` ${to}`,
    )
  }

  #of(parts: readonly Part[], isShared: boolean, work: () => Promise<void>): Wound | null {
    if (parts.some(part => this.#taken.has(part))) return null
    const inflict = async (): Promise<void> => {
      for (const part of parts) this.#taken.add(part)
      try {
        await work()
      } finally {
        this.#free(parts)
      }
    }
    return { node: null, isShared, inflict }
  }

  async #untilFree(part: Part): Promise<void> {
    while (this.#taken.has(part)) await new Promise<void>(resolve => this.#waiting.push(resolve))
  }

  #free(parts: readonly Part[]): void {
    for (const part of parts) this.#taken.delete(part)
    for (const resolve of this.#waiting.splice(0)) resolve()
  }
}

/** Of a link's connections. */
const someOf = (random: Random, share: number): (() => boolean) => {
  return () => random.next() < share
}

/** Where the slot stands by what was acknowledged; asked until the server answers. 0n when there is none. */
export async function acknowledgedUpTo(url: string): Promise<bigint> {
  for (;;) {
    let lsn = 0n
    try {
      await asSuperuser(url, async client => {
        const { rows } = await client.query<{ lsn: string }>(
          `SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots
            WHERE slot_name LIKE 'tidegate%' AND database = current_database()`,
        )
        if (rows.length > 0) lsn = parseLsn(rows[0]!.lsn)
      })
      return lsn
    } catch {
      await sleep(100)
    }
  }
}

/** They are in the WAL, and no SELECT sees them. The server may crash meanwhile. */
async function stallCommits(url: string, forMs: number): Promise<void> {
  await asSuperuser(url, client => standby(client, 'ghost')).catch(() => {})
  await sleep(forMs)
  for (let isOver = false; !isOver; )
    isOver = await asSuperuser(url, client => standby(client, null)).then(
      () => true,
      () => sleep(100).then(() => false),
    )
}

async function asSuperuser(url: string, work: (client: pg.Client) => Promise<void>): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  try {
    await client.connect()
    await client.query('SET synchronous_commit = local')
    await work(client)
  } finally {
    await client.end()
  }
}

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
