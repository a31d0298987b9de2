// Closes what a server holds.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Channels } from './channels/channels.ts'
import type { Gateway } from './deliver/gateway.ts'
import type { Lanes } from './setup/lanes.ts'
import { closeShared, type SharedRedis } from './setup/shared-redis.ts'
import type { SubscriptionDoor } from './subscribe/subscribe.ts'

interface Parts {
  readonly stopping: AbortController
  readonly running: Promise<unknown>
  readonly gateway: Gateway
  readonly door: SubscriptionDoor
  readonly channels: Channels
  readonly redis: SharedRedis | null
  readonly lanes: Lanes
}

/** A Postgres that does not answer must not keep a process that its clients have left: questions to it hang for ten seconds. */
const endMs = 3000

/** Of a server that nobody uses any more. */
export async function endServer({ stopping, running, gateway, door, channels, redis, lanes }: Parts): Promise<void> {
  await gateway.close()
  stopping.abort()
  const end = async (): Promise<void> => {
    await running.catch(() => {})
    await channels.close()
    door.close()
    if (redis !== null) closeShared(redis)
    await lanes.end()
  }
  await Promise.race([end(), sleep(endMs, undefined, { ref: false })])
}
