// The least that carries rows from the WAL to sockets: our replication session and decoder, then a map from room to
// sockets and one frame per row. No memberships, no policies, no positions to come back to, nothing kept.
import { createServer } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { WebSocketServer } from 'ws'
import { TransactionAssembler } from '../../src/server/decode/transaction.ts'
import { textFrame } from '../../src/server/deliver/encode.ts'
import { connectionOf } from '../../src/server/postgres/postgres-url.ts'
import { ReplicationStream } from '../../src/server/wal/replication-stream.ts'
import { answer } from '../child.ts'
import { name } from '../world.ts'

const stopping = new AbortController()
const byRoom = new Map<string, Socket[]>()
const http = createServer()
const websockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, clientTracking: false })
let stream: ReplicationStream | null = null

async function carry(from: ReplicationStream): Promise<void> {
  const assembler = new TransactionAssembler()
  for await (const gulp of from.gulps()) {
    const frames = new Map<string, Buffer[]>()
    for (const { data } of gulp) {
      const commit = data === null ? null : assembler.push(data)
      if (commit === null) continue
      for (const change of commit.changes()) {
        if (change.kind !== 'insert' || change.relation.name !== 'messages') continue
        const row = change.relation.columns.map((column, i) => {
          const value = change.new.text(i)
          const json = column.name === 'body' ? JSON.stringify(value) : value === null ? 'null' : value
          return `"${column.name}":${json}`
        })
        const frame = textFrame(`{"type":"delta","row":{${row.join(',')}}}`)
        const room = change.new.text(1)!
        const list = frames.get(room)
        if (list === undefined) frames.set(room, [frame])
        else list.push(frame)
      }
    }
    for (const [room, list] of frames) {
      const bytes = list.length === 1 ? list[0]! : Buffer.concat(list)
      for (const socket of byRoom.get(room) ?? []) socket.write(bytes)
    }
  }
}

answer(
  {
    async start({ databaseUrl, slot, rooms }: { databaseUrl: string; slot: string; rooms: number }) {
      let count = 0
      http.on('upgrade', (request, socket, head) => {
        websockets.handleUpgrade(request, socket, head, () => {
          const room = String((count++ % rooms) + 1)
          byRoom.set(room, [...(byRoom.get(room) ?? []), socket as Socket])
        })
      })
      stream = new ReplicationStream({
        connection: connectionOf(databaseUrl),
        ...{ slotName: slot, publication: name, confirmedFlushLsn: 0n, walSenderTimeoutMs: 60_000 },
        startTimeoutMs: 10_000,
        makeFailover: false,
        needsHistory: () => false,
        ...{ statusIntervalMs: 10_000, silenceMs: 60_000, maxPendingBytes: 8 * 2 ** 20, signal: stopping.signal },
      })
      await stream.start()
      void carry(stream)
      await new Promise<void>(resolve => http.listen(0, '127.0.0.1', resolve))
      return { port: (http.address() as AddressInfo).port }
    },
    stop: async () => {
      await stream?.close()
      await new Promise(resolve => setTimeout(resolve, 500))
    },
  },
  () => stopping.abort(),
)
