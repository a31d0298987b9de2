// Joins what is sent to Redis in one turn into one write: each write alone takes longer than the command.
import { Redis } from 'ioredis'
import type { RedisClient } from '../../redis/redis.ts'

/** Sends what `ask` asks for, of the same client, at its end. */
export function corked<T>(client: RedisClient, ask: () => T): T {
  const streams = streamsOf(client)
  for (const stream of streams) stream.cork()
  try {
    return ask()
  } finally {
    for (const stream of streams) stream.uncork()
  }
}

const waiting = new WeakSet<RedisClient>()

/** What is asked from now on goes at the end of the turn. */
export function corkTurn(client: RedisClient): void {
  if (waiting.has(client)) return
  waiting.add(client)
  const streams = streamsOf(client)
  for (const stream of streams) stream.cork()
  setImmediate(() => {
    waiting.delete(client)
    for (const stream of streams) stream.uncork()
  })
}

const streamsOf = (client: RedisClient) =>
  (client instanceof Redis ? [client] : client.nodes('master')).flatMap(({ stream }) => stream ?? [])
