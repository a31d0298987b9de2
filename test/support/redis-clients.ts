// Clients of Redis as the server opens them, closed at the end of a test.
import { setTimeout as sleep } from 'node:timers/promises'
import { closeRedis, isRedisAway, openRedis, type RedisClient } from '../../src/server/redis/redis.ts'

/** @example
 *  using opened = open(redis.url)
 *  await opened.works() */
export function open(url: string, commandTimeoutMs = 3000): OpenedRedis {
  return new OpenedRedis(openRedis(url, { connectionName: 'test', commandTimeoutMs }))
}

export class OpenedRedis implements Disposable {
  readonly client: RedisClient

  constructor(client: RedisClient) {
    this.client = client
  }

  /** Asks again until it is answered.
   *  @returns the answer, after how long, and the longest that one attempt took
   *  @throws what is no word of a Redis that is away, at once */
  async answered<Reply>(
    ask: (client: RedisClient) => Promise<Reply>,
  ): Promise<{ reply: Reply; afterMs: number; longestMs: number }> {
    const beganMs = performance.now()
    let longestMs = 0
    for (;;) {
      const askedMs = performance.now()
      try {
        const reply = await ask(this.client)
        return { reply, afterMs: performance.now() - beganMs, longestMs }
      } catch (error) {
        if (!isRedisAway(error) || performance.now() - beganMs > 15_000) throw error
      }
      longestMs = Math.max(longestMs, performance.now() - askedMs)
      await sleep(5)
    }
  }

  /** Waits until it answers. */
  async works(): Promise<this> {
    await this.answered(client => client.get('{tidegate}:any'))
    return this
  }

  /** Waits until a command fails. @returns what it said, and how long it took */
  async fails(): Promise<{ error: unknown; tookMs: number }> {
    for (const deadlineMs = performance.now() + 10_000; performance.now() < deadlineMs; await sleep(5)) {
      const askedMs = performance.now()
      try {
        await this.client.get('{tidegate}:any')
      } catch (error) {
        return { error, tookMs: performance.now() - askedMs }
      }
    }
    throw new Error('no command failed')
  }

  [Symbol.dispose](): void {
    closeRedis(this.client)
  }
}
