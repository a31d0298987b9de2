// What one channel says to its client, beside events.
import type { SendQueue } from '../send-queue.ts'
import { messageFrame } from './serializer.ts'
import type { Vsn } from './wire.ts'

export class Voice {
  readonly #line: { readonly queue: SendQueue; readonly vsn: Vsn }
  readonly #topic: string
  readonly #name: string
  readonly #joinRef: string

  /** @param name the topic without its prefix */
  constructor(line: { readonly queue: SendQueue; readonly vsn: Vsn }, topic: string, name: string, joinRef: string) {
    this.#line = line
    this.#topic = topic
    this.#name = name
    this.#joinRef = joinRef
  }

  /** @param response JSON text */
  reply(ref: string | null, status: 'ok' | 'error', response: string): void {
    this.#say('phx_reply', `{"status":"${status}","response":${response}}`, ref, this.#joinRef)
  }

  refuse(ref: string | null, reason: string): void {
    this.reply(ref, 'error', JSON.stringify({ reason }))
  }

  system(status: 'ok' | 'error', extension: string, message: string): void {
    this.#line.queue.push(this.systemFrame(status, extension, message))
  }

  systemFrame(status: 'ok' | 'error', extension: string, message: string): Buffer {
    return this.frame('system', JSON.stringify({ extension, status, message, channel: this.#name }), this.#joinRef)
  }

  /** Something cannot be had any more. */
  missed(extension: string, { code, reason }: { readonly code: string; readonly reason: string }): Buffer {
    return this.systemFrame('error', extension, `${code}: ${reason}`)
  }

  /** Of the whole socket: no channel is named. */
  goAway(): void {
    const payload = { extension: 'system', status: 'ok', message: 'Server requested disconnect' }
    this.#say('system', JSON.stringify(payload), null, this.#joinRef)
  }

  /** Clients take no presence before a state. */
  nobodyHere(): void {
    this.#say('presence_state', '{}', null, null)
  }

  /** The channel ends: after `phx_error` its client joins again, after `phx_close` never. */
  end(event: 'phx_error' | 'phx_close'): void {
    this.#say(event, '{}', this.#joinRef, this.#joinRef)
  }

  /** @param payload JSON text */
  frame(event: string, payload: string, joinRef: string | null = null): Buffer {
    return messageFrame(this.#line.vsn, { joinRef, ref: null, topic: this.#topic, event, payload })
  }

  #say(event: string, payload: string, ref: string | null, joinRef: string | null): void {
    this.#line.queue.push(messageFrame(this.#line.vsn, { joinRef, ref, topic: this.#topic, event, payload }))
  }
}
