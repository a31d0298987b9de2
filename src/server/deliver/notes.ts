// What a subscription's answer says beside the necessary: the same on every wire, and left out where there is nothing.
import type { OrderTerm, Warning } from '../../protocol/messages.ts'
import type { Subscription } from '../subscribe/subscription.ts'

export interface Notes {
  order?: OrderTerm[]
  limit?: number
  exact?: false
  warnings?: Warning[]
}

export const notesOf = ({
  order,
  limit,
  exact,
  warnings,
}: Pick<Subscription, 'order' | 'limit' | 'exact' | 'warnings'>): Notes => ({
  ...(order === undefined ? {} : { order: [...order] }),
  ...(limit === undefined ? {} : { limit }),
  ...(exact === false ? { exact } : {}),
  ...(warnings.length === 0 ? {} : { warnings: [...warnings] }),
})
