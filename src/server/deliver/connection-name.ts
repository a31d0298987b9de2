// What others know a connection by: the sender of a message, a member of a channel, whom to send to.
import { createHash, randomBytes } from 'node:crypto'
import type { Principal } from '../subscribe/subscription.ts'

/** 12 characters. */
export const newConnectionName = (): string => randomBytes(9).toString('base64url')

/** What a client that polls keeps between its polls: 22 characters. */
export const newPollKey = (): string => randomBytes(16).toString('base64url')

/** One name for all polls of one client, on every node, without anything kept: everybody in a channel sees the name, and it
 *  leads neither to the key nor, with another subject's token, to the same name. 16 characters. */
export function connectionNameOf(pollKey: string, { role, claims }: Principal): string {
  const subject = JSON.stringify([pollKey, role, claims.sub ?? null])
  return createHash('sha256').update(subject).digest().subarray(0, 12).toString('base64url')
}
