// Socket.IO 4 with its Redis adapter, WebSocket only and without deflate: everybody in one room, what one sends goes to all.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createAdapter } from '@socket.io/redis-adapter'
import { Redis } from 'ioredis'
import { Server } from 'socket.io'
import { answer, cpuMicros } from '../child.ts'

const http = createServer()
let redis: readonly Redis[] = []

answer(
  {
    async start({ redisUrl }: { redisUrl: string }) {
      redis = [new Redis(redisUrl), new Redis(redisUrl)]
      const io = new Server(http, {
        adapter: createAdapter(redis[0], redis[1]),
        transports: ['websocket'],
        perMessageDeflate: false,
        httpCompression: false,
        pingInterval: 600_000,
        pingTimeout: 600_000,
      })
      io.on('connection', socket => {
        void socket.join('room')
        socket.on('send', (payload: unknown) => void io.to('room').emit('m', payload))
      })
      await new Promise<void>(resolve => http.listen(0, '127.0.0.1', resolve))
      return { port: (http.address() as AddressInfo).port }
    },
    cpu: cpuMicros,
  },
  () => {
    for (const each of redis) each.disconnect()
  },
)
