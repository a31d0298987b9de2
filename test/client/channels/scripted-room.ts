import { type Client, type ClientOptions, createClient } from '../../../src/client/client.ts'
import type { ServerFrame } from '../../../src/protocol/messages.ts'
import { at, type Peer, ScriptedServer } from '../scripted-server.ts'

export type Joined = Extract<ServerFrame, { type: 'joined' }>

export interface Run extends AsyncDisposable {
  readonly server: ScriptedServer
  readonly tide: Client
  readonly errors: Error[]
}

export async function start(options: Partial<ClientOptions> = {}): Promise<Run> {
  const server = await ScriptedServer.start()
  const errors: Error[] = []
  const tide = createClient(server.url, {
    token: 'token',
    transports: ['websocket'],
    onError: error => errors.push(error),
    ...options,
  })
  return {
    server,
    tide,
    errors,
    async [Symbol.asyncDispose]() {
      tide.close()
      await server[Symbol.asyncDispose]()
    },
  }
}

/** Lets the next join in. */
export async function letIn(peer: Peer, more: Partial<Joined> = {}) {
  const join = await peer.next('join')
  const { id } = join
  peer.send({
    type: 'joined',
    id,
    channel: 12,
    tag: 'tag',
    resumed: false,
    position: at(1),
    history: true,
    maySend: true,
    ...more,
  })
  return join
}

export async function welcomed(run: Run): Promise<Peer> {
  const peer = await run.server.peer()
  await peer.welcome()
  return peer
}

export const message = (lsn: number, payload: number, more: object = {}): ServerFrame => ({
  type: 'message',
  channel: 12,
  position: at(lsn),
  id: `id ${lsn}`,
  event: 'say',
  payload,
  sender: { user: 'bob', connection: 'other' },
  sentAt: '2026-01-01T00:00:00.000Z',
  ...more,
})

export const person = (ref: string) => ({
  ref,
  key: ref,
  user: ref,
  connection: ref,
  meta: null,
  since: '2026-01-01T00:00:00.000Z',
})
