// A node with presence as a process of its own, to be hurt: killed, stopped in its tracks.

import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { PresenceDraft } from '../../../../src/server/channels/presence/presence.ts'
import type { PresenceRule } from '../../../../src/server/channels/rules.ts'
import { startPresenceNode } from './redis-presence-world.ts'

type Order =
  | {
      readonly do: 'track'
      readonly channel: string
      readonly drafts: readonly PresenceDraft[]
      readonly rule: PresenceRule
    }
  | { readonly do: 'untrack'; readonly channel: string; readonly connection: string; readonly how: 'gone' | 'broken' }
  | { readonly do: 'cpu' }

interface Answer {
  readonly id: number
  readonly error?: string
  /** Of `cpu`: microseconds so far. */
  readonly cpu?: number
}

export class PresenceProcess implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, (answer: Answer) => void>()
  readonly #gone: Promise<void>
  #last = 0

  private constructor(child: ChildProcess) {
    this.#child = child
    child.on('message', (answer: Answer) => {
      this.#waiting.get(answer.id)?.(answer)
      this.#waiting.delete(answer.id)
    })
    this.#gone = new Promise(resolve => child.once('exit', () => resolve()))
  }

  static async start(url: string, name: string, leaseMs = 1000): Promise<PresenceProcess> {
    const child = fork(fileURLToPath(import.meta.url), [url, name, String(leaseMs)], { stdio: 'inherit' })
    await new Promise((resolve, reject) => {
      child.once('message', resolve)
      child.once('exit', code => reject(new Error(`exited with ${code}`)))
    })
    return new PresenceProcess(child)
  }

  track(channel: string, drafts: readonly PresenceDraft[], rule: PresenceRule): Promise<void> {
    return this.#order({ do: 'track', channel, drafts, rule }).then(() => {})
  }

  untrack(channel: string, connection: string, how: 'gone' | 'broken'): Promise<void> {
    return this.#order({ do: 'untrack', channel, connection, how }).then(() => {})
  }

  /** Milliseconds of processor time so far. */
  async cpuMs(): Promise<number> {
    return (await this.#order({ do: 'cpu' })).cpu! / 1000
  }

  pause(): void {
    this.#child.kill('SIGSTOP')
  }

  resume(): void {
    this.#child.kill('SIGCONT')
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#gone
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill()
  }

  async #order(order: Order): Promise<Answer> {
    this.#last += 1
    const id = this.#last
    const answer = await new Promise<Answer>(resolve => {
      this.#waiting.set(id, resolve)
      this.#child.send({ id, ...order })
    })
    if (answer.error !== undefined) throw new Error(answer.error)
    return answer
  }
}

async function serve(): Promise<void> {
  const [url, name, leaseMs] = process.argv.slice(2)
  const { store } = await startPresenceNode(url!, name!, Number(leaseMs))
  const carryOut = async (order: Order): Promise<Omit<Answer, 'id'>> => {
    if (order.do === 'track')
      await Promise.all(order.drafts.map(draft => store.track(order.channel, draft, order.rule)))
    else if (order.do === 'untrack') await store.untrack(order.channel, order.connection, order.how)
    else {
      const { user, system } = process.cpuUsage()
      return { cpu: user + system }
    }
    return {}
  }
  process.on('message', async (order: Order & { id: number }) => {
    const answer = await carryOut(order).catch((error: Error) => ({ error: error.message }))
    process.send!({ id: order.id, ...answer })
  })
  process.on('disconnect', () => process.exit())
  process.send!('ready')
}

if (process.send !== undefined && process.argv[1] === fileURLToPath(import.meta.url)) await serve()
