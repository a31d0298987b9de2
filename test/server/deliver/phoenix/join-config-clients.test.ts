import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { WebSocketServer } from 'ws'
import type { Json } from '../../../../src/protocol/messages.ts'
import { joinConfigOf } from '../../../../src/server/deliver/phoenix/join-config.ts'
import { messageFrame, parseIncoming } from '../../../../src/server/deliver/phoenix/serializer.ts'
import type { Binding, Vsn } from '../../../../src/server/deliver/phoenix/wire.ts'
import { realtimeClients, vsns } from './support/clients.ts'

// Answers a join, and then tells each binding of one INSERT of its own.
const server = new WebSocketServer({ host: '127.0.0.1', port: 0 })
let url = ''

beforeAll(async () => {
  if (server.address() === null) await new Promise(resolve => server.once('listening', resolve))
  url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}/realtime/v1`
})

afterAll(() => {
  for (const client of server.clients) client.terminate()
  server.close()
})

server.on('connection', (socket, request) => {
  const vsn = new URL(request.url!, url).searchParams.get('vsn') as Vsn
  socket.on('message', (data, isBinary) => {
    const { topic, event, joinRef, ref, payload } = parseIncoming(data as Buffer, isBinary, vsn)
    const push = (event: string, ref: string | null, payload: string): void =>
      send(request.socket, messageFrame(vsn, { joinRef, ref, topic, event, payload }))
    if (event !== 'phx_join') return push('phx_reply', ref, '{"status":"ok","response":{}}')
    const { bindings } = joinConfigOf(topic, payload as Json)
    const echoes = bindings.map(({ echo }) => echo).join()
    push('phx_reply', ref, `{"status":"ok","response":{"postgres_changes":[${echoes}]}}`)
    for (const binding of bindings) push('postgres_changes', null, changeOf(binding))
    push('broadcast', null, '{"type":"broadcast","event":"done","payload":{}}')
  })
})

const send = (socket: Duplex, frame: Buffer): void => {
  socket.write(frame)
}

function changeOf({ id, schema, table }: Binding): string {
  const columns = [{ name: 'id', type: 'int8' }]
  const data = { schema, table, commit_timestamp: null, type: 'INSERT', columns, record: { id: 1 }, errors: null }
  return JSON.stringify({ ids: [id], data })
}

type Filter = { [key: string]: unknown }

interface Channel {
  on(type: string, filter: object, callback: (payload: { table?: string }) => void): Channel
  subscribe(callback: (status: string, error?: Error) => void): Channel
}

/** What a client's callbacks were called with, one for each filter, once all was sent. */
async function callsOf(name: keyof typeof realtimeClients, vsn: Vsn, filters: readonly Filter[]): Promise<string[][]> {
  const client = new realtimeClients[name](url, { params: { apikey: 'key' }, vsn })
  try {
    const channel = client.channel('room:1') as unknown as Channel
    const calls = filters.map((): string[] => [])
    for (const [place, filter] of filters.entries())
      channel.on('postgres_changes', filter, ({ table }) => calls[place]!.push(table!))
    await new Promise<void>((resolve, reject) => {
      channel.on('broadcast', { event: 'done' }, () => resolve())
      channel.subscribe((status, error) => {
        if (status !== 'SUBSCRIBED') reject(error ?? new Error(status))
      })
    })
    return calls
  } finally {
    await client.removeAllChannels()
    client.disconnect()
  }
}

const names = Object.keys(realtimeClients) as (keyof typeof realtimeClients)[]

describe.each(names.flatMap(name => vsns.map(vsn => ({ name, vsn }))))('$name, vsn $vsn', ({ name, vsn }) => {
  test.each<[string, Filter[]]>([
    ['one of each kind', ['*', 'INSERT'].map(event => ({ event, schema: 'public', table: 'todos' }))],
    [
      'filters of many forms',
      [
        { event: '*', schema: 'public', table: 'todos', filter: 'id=eq.1' },
        { event: '*', schema: 'public', table: 'todos', filter: 'name=in.(ä,"ö ,")' },
        { event: '*', schema: 'public', table: 'todos', filter: undefined },
        { event: '*', schema: 'public', table: 'täsks', filter: null },
        { event: '*', schema: 'public', table: 'notes', filter: '' },
      ],
    ],
    [
      'tables and schemas left out',
      [
        { event: '*', schema: 'public' },
        { event: '*', table: 'todos' },
        { event: '*', schema: '*', table: '*' },
        { event: '*' },
      ],
    ],
    [
      'odd values',
      [
        { event: 'insert', schema: 'public', table: 'todos' },
        { event: '*', schema: 'public', table: 7 },
        { event: '*', schema: 'public', table: 'todos', filter: 7 },
        { event: '*', schema: 'public', table: 'notes', filter: '  ' },
        { event: '*', schema: 'public', table: 'notes', select: ['id'] },
      ],
    ],
  ])('is subscribed, and each callback called once, with %s', async (_name, filters) => {
    const { bindings } = joinConfigOf('realtime:room:1', { config: { postgres_changes: asJson(filters) } })
    expect(await callsOf(name, vsn, filters)).toEqual(bindings.map(({ table }) => [table]))
  })

  test('is not called for the changes of others', async () => {
    const filters = ['INSERT', 'DELETE', 'UPDATE'].map(event => ({ event, schema: 'public', table: 'todos' }))
    expect(await callsOf(name, vsn, filters)).toEqual([['todos'], [], []])
  })

  test('what is asked for twice is told to each who asked, once', async () => {
    const todos = { event: '*', schema: 'public', table: 'todos' }
    const calls = await callsOf(name, vsn, [todos, { ...todos, event: 'INSERT' }, { ...todos }])
    // Today's client takes no second callback for the same filter, and says so in its log.
    expect(calls).toEqual([['todos'], ['todos'], name === 'supabase-js' ? [] : ['todos']])
  })
})

const asJson = (value: unknown): Json => JSON.parse(JSON.stringify(value))
