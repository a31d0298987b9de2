// What a subscription's answer says beside the necessary: the same on every wire, and left out where there is nothing.
import type { Warning } from '../../protocol/messages.ts'
import type { Subscription } from '../subscribe/subscription.ts'

export interface Notes {
  exact?: false
  warnings?: Warning[]
}

export const notesOf = ({ exact, warnings }: Pick<Subscription, 'exact' | 'warnings'>): Notes => ({
  ...(exact === false ? { exact } : {}),
  ...(warnings.length === 0 ? {} : { warnings: [...warnings] }),
})
