// What a fan-out could cost at least: `ws` for the handshake, then one prebuilt frame written to every socket in a loop.
// The ten of a turn are one prebuilt buffer.
import { createServer } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { WebSocketServer } from 'ws'
import { textFrame } from '../../src/server/deliver/encode.ts'
import { answer, restedMemory } from '../child.ts'
import { Credits, type Pace } from '../credits.ts'

const credits = await Credits.listen()
const sockets = new Set<Socket>()
const http = createServer()
const websockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, clientTracking: false })
http.on('upgrade', (request, socket, head) => {
  websockets.handleUpgrade(request, socket, head, ws => {
    sockets.add(socket as Socket)
    ws.on('error', () => {})
    ws.on('close', () => sockets.delete(socket as Socket))
  })
})

answer(
  {
    async start() {
      await new Promise<void>(resolve => http.listen(0, '127.0.0.1', resolve))
      return { port: (http.address() as AddressInfo).port, creditPort: credits.port }
    },
    once({ text }: { text: string }) {
      for (const socket of sockets) socket.write(textFrame(text))
    },
    repeat({ text, ...pace }: Pace & { text: string }) {
      const frame = textFrame(text)
      const bytes = Buffer.concat(Array.from({ length: pace.perTurn }, () => frame))
      return credits.spend(pace, async () => {
        for (const socket of sockets) socket.write(bytes)
        await nextTurn()
      })
    },
    memory: restedMemory,
  },
  () => {},
)
