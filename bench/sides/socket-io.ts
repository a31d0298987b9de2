// Socket.IO 4 with WebSocket only and without deflate: everybody in one room, one emit to it for each message.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Server } from 'socket.io'
import { answer } from '../child.ts'
import { Credits, type Pace } from '../credits.ts'

const credits = await Credits.listen()
const http = createServer()
const io = new Server(http, {
  transports: ['websocket'],
  perMessageDeflate: false,
  httpCompression: false,
  pingInterval: 600_000,
  pingTimeout: 600_000,
})
io.on('connection', socket => void socket.join('room'))

answer(
  {
    async start() {
      await new Promise<void>(resolve => http.listen(0, '127.0.0.1', resolve))
      return { port: (http.address() as AddressInfo).port, creditPort: credits.port }
    },
    // The event's name is short, and the text goes as one string, which is less work for it than an object.
    once({ text }: { text: string }) {
      io.to('room').emit('m', text)
    },
    repeat({ text, ...pace }: Pace & { text: string }) {
      return credits.spend(pace, async perTurn => {
        for (let i = 0; i < perTurn; i++) io.to('room').emit('m', text)
        await nextTurn()
      })
    },
  },
  () => {},
)
