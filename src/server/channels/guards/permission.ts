// Who may be in a channel, and send to it: types only.
import type { Principal } from '../../subscribe/subscription.ts'
import type { ChannelName } from '../message.ts'

/** The column `extension` of the row that policies judge. */
export type Extension = 'broadcast' | 'presence'

export type Action = 'receive' | 'send'

/** What one principal may do in one channel: as the policies on `realtime.messages` have it, with the memberships at the head of
 *  the stream. */
export interface ChannelPermission {
  /** SELECT of a row `{topic, extension, private}` to receive, INSERT of it to send. A look, not a question. */
  may(action: Action, extension: Extension): boolean
  /** False where Postgres is asked: its grants and revocations are noticed a moment later. */
  readonly isExact: boolean
  release(): void
}

export interface PermissionWatcher {
  /** What it may do has changed, with the commit being served: nothing may be delivered to it before this returns. */
  changed(): void
  /** It can no longer be judged. */
  ended(error: unknown): void
}

export interface ChannelGuards {
  /** Resolves when the memberships that decide are loaded. Public channels ask nothing: `alwaysAllowed`.
   *  @throws CHANNELS_OFF, ROLE_REFUSED, TABLE_REFUSED and what loading memberships throws */
  acquire(principal: Principal, channel: ChannelName, watcher: PermissionWatcher): Promise<ChannelPermission>
}

export const alwaysAllowed: ChannelPermission = { may: () => true, isExact: true, release: () => {} }
