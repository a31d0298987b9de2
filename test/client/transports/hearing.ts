// What a transport tells whoever opened it.

import type { Loss, OpenTransport, Transport } from '../../../src/client/transports/transport.ts'
import type { ClientFrame, ServerFrame } from '../../../src/protocol/messages.ts'
import { eventually } from '../../support/eventually.ts'

export class Hearing implements Disposable {
  readonly frames: ServerFrame[] = []
  readonly losses: Loss[] = []
  /** What enters everything from where it stands; sent when it is welcome, as the client does. */
  entries: ClientFrame[] = []
  readonly transport: Transport

  constructor(open: OpenTransport, url: string, token = 'token') {
    this.transport = open({
      url: new URL(url),
      token,
      entries: () => this.entries,
      listener: {
        onFrame: frame => {
          this.frames.push(frame)
          if (frame.type === 'welcome') for (const entry of this.entries) this.transport.send(entry)
        },
        onLost: loss => this.losses.push(loss),
      },
    })
  }

  get types(): string[] {
    return this.frames.map(({ type }) => type)
  }

  /** The first frame of this type, when it has come. */
  frame<T extends ServerFrame['type']>(type: T): Promise<Extract<ServerFrame, { type: T }>> {
    return eventually(() => {
      const frame = this.frames.find(each => each.type === type)
      if (frame === undefined) throw new Error(`no ${type} among ${this.types}; lost by ${JSON.stringify(this.losses)}`)
      return frame as Extract<ServerFrame, { type: T }>
    })
  }

  lost(): Promise<Loss> {
    return eventually(() => {
      if (this.losses[0] === undefined) throw new Error('it is not lost')
      return this.losses[0]
    })
  }

  [Symbol.dispose](): void {
    this.transport.close()
  }
}
