// Hears of a permission's changes for somebody who is only about to be a member.
import type { ChannelMember } from './channel-member.ts'
import type { PermissionWatcher } from './guards/permission.ts'

/** Told of changes while its member does not stand yet. */
export class Watcher implements PermissionWatcher {
  member: ChannelMember | null = null
  error: unknown = null

  changed(): void {
    this.member?.changed()
  }

  ended(error: unknown): void {
    this.error = error
    this.member?.ended(error)
  }
}
