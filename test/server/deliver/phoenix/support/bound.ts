// Who is bound to changes as a client of Supabase is, on a real node, without a socket between.
import type { JsonRow } from '../../../../../src/protocol/messages.ts'
import { subscribeFrameOf } from '../../../../../src/server/deliver/phoenix/bindings.ts'
import { changeDataOf, reactionTo } from '../../../../../src/server/deliver/phoenix/change-data.ts'
import { tablesOf } from '../../../../../src/server/deliver/phoenix/tables.ts'
import type { Binding } from '../../../../../src/server/deliver/phoenix/wire.ts'
import { requestOfFrame } from '../../../../../src/server/deliver/url.ts'
import type { Outlet, Principal, Subscription } from '../../../../../src/server/subscribe/subscription.ts'
import { eventually } from '../../../../support/eventually.ts'
import type { TestNode } from '../../../../support/node.ts'

export interface Change {
  readonly schema: string
  readonly table: string
  readonly commit_timestamp: string
  readonly type: string
  readonly columns: readonly { readonly name: string; readonly type: string }[]
  readonly record?: JsonRow
  readonly old_record?: JsonRow
  readonly errors: null
}

export const bindingOf = (parts: Partial<Binding> & { readonly table: string }): Binding => ({
  id: 1,
  echo: '{}',
  event: '*',
  schema: 'public',
  filter: null,
  select: null,
  ...parts,
})

export const principalOf = (sub: string): Principal => ({
  role: 'authenticated',
  claims: { role: 'authenticated', sub },
  expiresAt: null,
})

export class Bound {
  /** JSON texts of `data`; `reread` where the client has to read again. */
  readonly told: string[] = []
  subscription: Subscription | null = null
  failure: unknown = null

  /** @throws as the binding is refused */
  static async to(node: TestNode, principal: Principal, binding: Binding): Promise<Bound> {
    const bound = new Bound()
    const [table] = tablesOf(binding, await node.server.subscriptions.tables(principal))
    const request = requestOfFrame(subscribeFrameOf(binding, table!, 2))
    const outlet: Outlet = {
      send: outgoing => {
        const reaction = reactionTo(outgoing, binding.event)
        if (reaction === 'reread') bound.told.push('reread')
        else if (reaction === 'send')
          bound.told.push(changeDataOf(outgoing, bound.subscription!.columns!, binding.event))
        return true
      },
      sendBatch: batch => batch.events.every(event => outlet.send(event)),
      sink: null,
      sinkIsFull: () => {},
      takeBack: () => {},
      resync: code => bound.told.push(`resync ${code}`),
      move: () => false,
      fail: error => {
        bound.failure = error
      },
    }
    bound.subscription = await node.server.subscriptions.subscribe(principal, request, outlet)
    return bound
  }

  get changes(): Change[] {
    return this.told.map(text => JSON.parse(text))
  }

  /** What it is told, a word for each: `UPDATE 1`. */
  get words(): string[] {
    return this.told.map(text => {
      if (!text.startsWith('{')) return text
      const { type, record, old_record: old } = JSON.parse(text) as Change
      return `${type} ${(record ?? old)?.id}`
    })
  }

  /** Waits until it has been told so many things. */
  async until(count: number): Promise<this> {
    await eventually(() => {
      if (this.failure !== null) throw this.failure
      if (this.told.length < count) throw new Error(`told ${this.told.length} of ${count}`)
    })
    return this
  }
}
