// What the transports share of the wire: addresses, and frames as text.
import type { ErrorEvent, ServerFrame } from '../../protocol/messages.ts'
import type { Loss, TransportListener } from './transport.ts'

/** The link broke, and nobody said why. */
export const broken: Loss = { error: null, retry: 'now' }

/** `https://host/base/` and `socket` become `https://host/base/v1/socket`. */
export function addressOf(base: URL, path: string): URL {
  const address = new URL(base)
  address.pathname = `${address.pathname.replace(/\/+$/, '')}/v1/${path}`
  address.search = ''
  address.hash = ''
  return address
}

/** A frame of a later server with a type unknown here passes. @returns null for what is no JSON object with a type */
export function frameOf(text: unknown): ServerFrame | null {
  try {
    const value: unknown = JSON.parse(text as string)
    return typeof value === 'object' && value !== null && 'type' in value ? (value as ServerFrame) : null
  } catch {
    return null
  }
}

/** An error of whoever listens is not the transport's. */
export function tell(listener: TransportListener, frame: ServerFrame): void {
  try {
    listener.onFrame(frame)
  } catch (error) {
    queueMicrotask(() => {
      throw error
    })
  }
}

/** What the server said of the whole connection. */
export const errorOfAll = (frame: ServerFrame, before: ErrorEvent | null): ErrorEvent | null =>
  frame.type === 'error' && frame.id === undefined && frame.ref === undefined
    ? frame
    : // What could not be checked was checked after all.
      frame.type === 'authenticated'
      ? null
      : before
