// Two nodes with channels over one Redis, whose way from the second can be hurt.
import { ChannelClient, channelPolicies } from '../support/channel-client.ts'
import { FaultyLink } from '../support/faulty-link.ts'
import { prepareDatabase, roomsSchema, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { type RedisProcess, startRedis } from '../support/redis-process.ts'

interface Node {
  readonly url: string
}

export class ChannelNodes<N extends Node> implements AsyncDisposable {
  readonly database: TestDatabase
  readonly redis: RedisProcess
  /** The second node's way to Redis. */
  readonly link: FaultyLink
  /** Both nodes' way to Postgres. */
  readonly toPostgres: FaultyLink
  readonly a: N
  readonly b: N
  readonly #clients: ChannelClient[] = []
  readonly #end: (node: N) => Promise<unknown>
  #lastRoom = 0

  private constructor(
    services: Pick<ChannelNodes<N>, 'database' | 'redis' | 'link' | 'toPostgres'>,
    nodes: readonly [N, N],
    end: (node: N) => Promise<unknown>,
  ) {
    this.database = services.database
    this.redis = services.redis
    this.link = services.link
    this.toPostgres = services.toPostgres
    this.a = nodes[0]
    this.b = nodes[1]
    this.#end = end
  }

  static async start<N extends Node>(
    startNode: (databaseUrl: string, redisUrl: string) => Promise<N>,
    end: (node: N) => Promise<unknown>,
  ): Promise<ChannelNodes<N>> {
    const database = await TestDatabase.create()
    const redis = await startRedis({ appendonly: true })
    await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
    const link = await FaultyLink.to(redis.url)
    const toPostgres = await FaultyLink.to(database.url)
    const nodes = [await startNode(toPostgres.url, redis.url), await startNode(toPostgres.url, link.url)] as const
    return new ChannelNodes({ database, redis, link, toPostgres }, nodes, end)
  }

  async open(node: Node, sub: string): Promise<ChannelClient> {
    const client = await ChannelClient.open(node, await tokenFor(sub))
    this.#clients.push(client)
    return client
  }

  /** A room of its own for each test. @param kept whether its topic begins with `room:9` @returns its topic */
  async roomOf(members: readonly string[], kept = false): Promise<string> {
    this.#lastRoom += 1
    const id = kept ? 900 + this.#lastRoom : 100 + this.#lastRoom
    for (const member of members) await this.database.query(`INSERT INTO members VALUES (${id}, '${member}')`)
    return `room:${id}`
  }

  /** Everybody is gone, and every way open. */
  settle(): void {
    for (const client of this.#clients.splice(0)) client.cut()
    for (const link of [this.link, this.toPostgres]) link.thaw()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.settle()
    for (const node of [this.a, this.b]) await this.#end(node)
    for (const link of [this.link, this.toPostgres]) await link[Symbol.asyncDispose]()
    await this.redis[Symbol.asyncDispose]()
    await this.database[Symbol.asyncDispose]()
  }
}
