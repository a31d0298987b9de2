// The channels of one node, or of two over one relay, without a server: clients that record, and policies that are a list.
import { afterEach } from 'vitest'
import { Channels } from '../../../src/server/channels/channels.ts'
import type { Caller, ChannelRequest, SendRequest } from '../../../src/server/channels/door.ts'
import type { ChannelGuards, PermissionWatcher } from '../../../src/server/channels/guards/permission.ts'
import { MemoryPresence } from '../../../src/server/channels/presence/memory-presence.ts'
import { MemoryChannelRelay } from '../../../src/server/channels/relay/memory-relay.ts'
import { ChannelRules } from '../../../src/server/channels/rules.ts'
import type { ChannelEntry } from '../../../src/server/config/channel-entries.ts'
import { createLog } from '../../../src/server/log/log.ts'
import { Head } from '../../../src/server/relay/head.ts'
import { steadyNow } from '../../../src/server/steady-clock.ts'
import type { Batch, Outgoing, Outlet } from '../../../src/server/subscribe/subscription.ts'

export const epoch = '0a0b0c0d'

/** What one client gets. */
export class Recorder implements Outlet {
  readonly sink = null
  readonly got: string[] = []
  readonly positions: Outgoing['position'][] = []
  room = Number.POSITIVE_INFINITY
  error: unknown = null
  send(outgoing: Outgoing): boolean {
    const data = JSON.parse(outgoing.json) as Record<string, unknown>
    this.got.push(
      outgoing.event === 'message'
        ? `${data.event}: ${JSON.stringify(data.payload)}`
        : `${outgoing.event} ${JSON.stringify(data.missed)}`,
    )
    this.positions.push(outgoing.position)
    this.room -= 1
    return this.room > 0
  }
  sendBatch(batch: Batch): boolean {
    let hasRoom = true
    for (const event of batch.events) hasRoom = this.send(event)
    return hasRoom
  }
  sinkIsFull(): void {}
  takeBack(): void {}
  resync(code: string): void {
    this.got.push(`resync ${code}`)
  }
  move(): boolean {
    return false
  }
  fail(error: unknown): void {
    this.error = error
  }
}

/** Everybody may do what is in `allowed`, as `<sub> <action> <extension>`. */
export class Policies implements ChannelGuards {
  readonly denied = new Set<string>()
  readonly #watchers = new Set<PermissionWatcher>()
  isExact = true
  async acquire(principal: Caller['principal'], _channel: unknown, watcher: PermissionWatcher) {
    this.#watchers.add(watcher)
    return {
      may: (action: string, extension: string) => !this.denied.has(`${principal.claims.sub} ${action} ${extension}`),
      isExact: this.isExact,
      release: () => void this.#watchers.delete(watcher),
    }
  }
  deny(what: string): void {
    this.denied.add(what)
    for (const watcher of [...this.#watchers]) watcher.changed()
  }
}

export interface Bench {
  readonly relay: MemoryChannelRelay
  readonly presence: MemoryPresence
  readonly channels: Channels
  readonly head: Head
  readonly policies: Policies
}

export const open: Channels[] = []
afterEach(async () => {
  for (const channels of open.splice(0)) await channels.close()
})

/** @param beside another node's, over the same relay */
export function bench(rules: readonly ChannelEntry[], beside?: Bench, { isPublicOpen = true } = {}): Bench {
  const head = new Head()
  head.begin(100n)
  const relay = beside?.relay ?? new MemoryChannelRelay({ now: steadyNow, random: Math.random })
  const presence = new MemoryPresence({ tell: (channel, diff) => relay.tellPresence(channel, diff) })
  const policies = new Policies()
  const channels = new Channels({
    relay,
    presence,
    guards: policies,
    rules: new ChannelRules(rules),
    window: { epoch, floorLsn: 50n, life: 1, between: () => [] },
    head,
    epochNow: async () => epoch,
    caughtUp: async () => {},
    nudge: async () => {},
    isLeading: () => true,
    isPublicOpen,
    waitForTransaction: async () => ({ epoch, lsn: 100n, index: 0 }),
    log: createLog('silent'),
    now: steadyNow,
    wallNow: Date.now,
  })
  open.push(channels)
  return { relay, presence, channels, head, policies }
}

export const caller = (sub: string, connection: string | null = `${sub}-1`): Caller => ({
  principal: { role: 'authenticated', claims: { sub }, expiresAt: null },
  connection,
})

export const room = (more: Partial<ChannelRequest> = {}): ChannelRequest => ({
  kind: 'channel',
  channel: { topic: 'room:1', isPrivate: true },
  self: false,
  presence: false,
  track: null,
  last: null,
  since: null,
  ...more,
})

export const said = (payload: unknown, more: Partial<SendRequest> = {}): SendRequest => ({
  event: 'said',
  payload: JSON.stringify(payload),
  isBinary: false,
  to: null,
  idempotencyKey: null,
  after: null,
  ...more,
})

export async function enter({ channels }: Bench, who: Caller, request = room()) {
  const outlet = new Recorder()
  const member = await channels.join(who, request, outlet)
  await turns()
  return { outlet, member }
}

/** Until what is under way has come. */
export async function turns(): Promise<void> {
  for (let turn = 0; turn < 8; turn++) await new Promise(resolve => setImmediate(resolve))
}

export const kept: ChannelEntry = { pattern: '*', history: { length: 5, ageMs: 60_000 } }
