// RELAY_DURABILITY: the slot is acknowledged only once a replica says that it holds what was appended.
import { afterEach, expect, test } from 'vitest'
import { startRedisCluster } from '../../support/redis-cluster.ts'
import { type RedisProcess, startRedis } from '../../support/redis-process.ts'
import { feedAll, JournalNode, lsnOf, name, seesBelow, Wal } from './journal-world.ts'

let node: JournalNode | null = null
afterEach(async () => {
  await node?.[Symbol.asyncDispose]()
})

/** With its replica, without, and with it again. */
async function acknowledges(url: string, replica: RedisProcess): Promise<void> {
  node = new JournalNode('ada', url, { durability: 'replica' })
  const wal = new Wal()
  const inlet = await node.lead(50n)
  wal.write()
  await feedAll(inlet, wal.since(50n))
  await node.has(1)
  const reached = async (lsn: bigint): Promise<void> => {
    const deadline = performance.now() + 15_000
    for (;;) {
      inlet.sampled(seesBelow(100))
      if ((await inlet.acknowledgeable().catch(() => null)) === lsn) return
      if (performance.now() > deadline) throw new Error(`it is not acknowledged up to ${lsn}`)
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  }
  await reached(lsnOf(1) + 50n)
  await replica.kill()
  wal.write()
  await feedAll(inlet, wal.since(lsnOf(1) + 50n))
  // Readers are told all the same.
  await node.has(2)
  inlet.sampled(seesBelow(100))
  await expect(inlet.acknowledgeable()).rejects.toMatchObject({ code: 'RELAY_NOT_DURABLE' })
  await replica.start()
  await replica.synced()
  await reached(lsnOf(2) + 50n)
  await inlet.close()
}

test('[P4] without a replica that answers nothing is acknowledged, and all is when one does', async () => {
  await using master = await startRedis()
  await using replica = await startRedis({ replicaOf: master })
  await replica.synced()
  await acknowledges(master.url, replica)
})

test('[P4] in a Cluster the replica of our own master counts', { timeout: 60_000 }, async () => {
  await using cluster = await startRedisCluster({ key: `{${name}}` })
  const { port } = await cluster.master()
  let replica: RedisProcess | null = null
  for (const server of cluster.servers)
    if ((await server.replication()).get('master_port') === String(port)) replica = server
  await acknowledges(cluster.url, replica!)
})
