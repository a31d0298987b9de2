// A permission of one reader, with everything that is told of it and where the stream stood then.
import type { ChannelPermission } from '../../../src/server/channels/guards/permission.ts'
import type { Principal } from '../../../src/server/subscribe/subscription.ts'
import type { TestNode } from '../../support/node.ts'

export class Watched {
  permission!: ChannelPermission
  /** The answers after each change that was told, as `answers` spells them. */
  readonly told: string[] = []
  /** Where the stream stood when that was told. */
  readonly toldAt: bigint[] = []
  ended: { code?: string } | null = null
  #wake: () => void = () => {}

  static async open(node: TestNode, principal: Principal, topic: string): Promise<Watched> {
    const watched = new Watched()
    watched.permission = await node.server.guards.acquire(
      principal,
      { topic, isPrivate: true },
      {
        changed: () => {
          watched.told.push(watched.answers)
          watched.toldAt.push(node.server.subscriptions.head().position.lsn)
          watched.#wake()
        },
        ended: error => {
          watched.ended = error as { code?: string }
          watched.#wake()
        },
      },
    )
    return watched
  }

  /** `rR sS`: receive and send, broadcasts in small letters and presence in large; a dash for what may not be done. */
  get answers(): string {
    const { permission } = this
    const shown = (action: 'receive' | 'send', letter: string): string =>
      (permission.may(action, 'broadcast') ? letter : '-') +
      (permission.may(action, 'presence') ? letter.toUpperCase() : '-')
    return `${shown('receive', 'r')} ${shown('send', 's')}`
  }

  async until(condition: () => boolean, timeoutMs = 10_000): Promise<void> {
    const deadline = Date.now() + timeoutMs
    while (!condition()) {
      const left = deadline - Date.now()
      if (left <= 0) throw new Error(`timed out; told ${JSON.stringify([this.told, this.ended])}, now ${this.answers}`)
      await new Promise<void>(resolve => {
        this.#wake = resolve
        setTimeout(resolve, Math.min(left, 20))
      })
    }
  }

  untilAnswers(answers: string): Promise<void> {
    return this.until(() => this.answers === answers)
  }

  [Symbol.dispose](): void {
    this.permission.release()
  }
}

export const principalOf = (sub: string, claims: Record<string, unknown> = {}): Principal => ({
  role: 'authenticated',
  claims: { role: 'authenticated', sub, ...claims },
  expiresAt: null,
})
