// Refuses a request for which there is no response to answer with: the connection ends behind it.
import { STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import { type PeerCode, peerCodes } from '../../protocol/codes.ts'
import type { Figures } from '../figures/figures.ts'

export interface SocketRefusal {
  readonly code: PeerCode
  readonly message: string
  /** Where HTTP has one that says more than the code's own. */
  readonly status?: number
}

export function refuseSocket(figures: Figures, socket: Duplex, { code, message, status }: SocketRefusal): void {
  figures.refusals.add(code)
  const body = JSON.stringify({ code, message, retry: peerCodes[code].retry !== 'never' })
  endWith(socket, status ?? peerCodes[code].status, body, {})
}

export function endWith(socket: Duplex, status: number, body: string, headers: Readonly<Record<string, string>>): void {
  const lines = Object.entries({
    'Content-Type': 'application/json; charset=utf-8',
    'Content-Length': String(Buffer.byteLength(body)),
    Connection: 'close',
    ...headers,
  }).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.once('finish', () => socket.destroy())
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n${lines.join('')}\r\n${body}`)
}
