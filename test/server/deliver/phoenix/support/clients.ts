// The clients that speak the Phoenix wire, as they are published.
import { RealtimeClient } from '@supabase/supabase-js'
import { Socket } from 'phoenix'
import { RealtimeClient as RealtimeClient2025 } from 'supabase-js-2025'
import type { Vsn } from '../../../../../src/server/deliver/phoenix/wire.ts'

/** A message as the clients name its parts. */
export interface ClientMessage {
  join_ref?: string | null
  ref?: string | null
  topic: string
  event: string
  payload: unknown
}

/** How a client writes and reads, over what it gives a socket and gets from one. */
export interface ClientCodec {
  readonly name: string
  readonly vsn: Vsn
  readonly encode: (message: ClientMessage) => { data: Buffer; isBinary: boolean }
  readonly decode: (data: Buffer, isBinary: boolean) => ClientMessage
}

type Coder = (value: unknown, callback: (coded: unknown) => void) => void

const nowhere = 'ws://127.0.0.1:1/socket'

export const realtimeClients = { 'supabase-js': RealtimeClient, 'supabase-js of 2025': RealtimeClient2025 } as const

export const vsns: readonly Vsn[] = ['1.0.0', '2.0.0']

/** Of supabase-js, today's and a year old. */
export const realtimeCodecs: readonly ClientCodec[] = Object.entries(realtimeClients).flatMap(([name, Client]) =>
  vsns.map(vsn => codecOf(name, vsn, new Client(nowhere, { params: { apikey: 'key' }, vsn }))),
)

export const phoenixCodec = codecOf('phoenix', '2.0.0', new Socket(nowhere, { transport: WebSocket }))

export const codecs: readonly ClientCodec[] = [...realtimeCodecs, phoenixCodec]

function codecOf(name: string, vsn: Vsn, client: object): ClientCodec {
  const { encode, decode } = client as { encode: Coder; decode: Coder }
  return {
    name,
    vsn,
    encode(message) {
      const data = given(encode, message) as string | ArrayBuffer
      return typeof data === 'string'
        ? { data: Buffer.from(data), isBinary: false }
        : { data: Buffer.from(data), isBinary: true }
    },
    decode: (data, isBinary) =>
      given(decode, isBinary ? new Uint8Array(data).buffer : data.toString()) as ClientMessage,
  }
}

function given(code: Coder, value: unknown): unknown {
  let result: unknown
  code(value, coded => {
    result = coded
  })
  return result
}
