// Sessions of frames, some of them broken, as JSON and as bytes.
import { connect } from 'node:net'
import type { PeerCode } from '../../src/protocol/codes.ts'
import type { Random } from '../checker/random.ts'
import { clientFrame, framesOf } from '../server/deliver/support/raw-socket.ts'
import { conditionText, filterOf } from './filters.ts'
import { mutateBytes, mutateJson, mutateText, nasty, noise } from './mutate.ts'
import type { Actor, Run } from './run.ts'
import { FuzzSocket } from './socket.ts'

const tables = ['things', 'public.notes', 'messages', 'rooms', 'members', 'nothing', '"things"', 'pg_catalog.pg_class']

export function frameOf(random: Random, run: Run): Record<string, unknown> {
  switch (random.below(9)) {
    case 0:
      return { type: 'auth', token: random.once(2) ? run.token : mutateText(random, run.token) }
    case 1:
      return { type: 'unsubscribe', id: random.below(6) }
    case 2:
      return { type: 'heartbeat' }
    case 3:
      return { type: 'wait', ref: random.below(6), txid: random.pick(['5', '735', '0', '99999999', 'x', ...nasty]) }
    default: {
      const frame: Record<string, unknown> = {
        type: 'subscribe',
        id: random.below(6),
        kind: random.pick(['live', 'live', 'changes']),
        table: random.once(3) ? random.pick([...tables, ...nasty]) : random.pick(['things', 'notes', 'messages']),
      }
      if (random.once(2)) frame.filter = conditionText(filterOf(random, 2))
      if (random.once(4)) frame.select = [random.pick(['id', 't', 'body', 'nothing', ...nasty])]
      if (random.once(6)) frame.events = random.pick([['insert'], ['update', 'delete'], ['truncate'], []])
      if (random.once(6)) frame.since = mutateText(random, '1f2e3d4c-16b3748.x7Kd_92m')
      return frame
    }
  }
}

/** Frames that say what they mean to a parser that listens well. */
export const sessions: Actor = async (run, random) => {
  while (!run.isOver()) {
    const early = random.once(6)
    const socket = await FuzzSocket.open(run, early ? null : run.token)
    if (early && random.once(2)) socket.send(JSON.stringify({ type: 'auth', token: run.token }))
    for (let times = 1 + random.below(8); times > 0 && !socket.isClosed; times--) {
      run.oracle.count('frames')
      const frame = frameOf(random, run)
      const text = random.once(2) ? JSON.stringify(frame) : mutateJson(random, frame)
      if (random.once(12)) socket.send(mutateBytes(random, Buffer.from(text)), false)
      else if (random.once(30)) socket.send(Buffer.from(text))
      else if (random.once(60)) socket.send(text.padEnd(70_000))
      else socket.send(text)
      // What came before may have been slow to refuse: sometimes all at once, sometimes one after the other.
      if (random.once(3)) await socket.settled()
    }
    await socket.settled()
    socket.terminate()
  }
}

/** Bytes below the frames: masks, lengths, fragments, reserved bits, and noise. */
export const bytes: Actor = async (run, random) => {
  while (!run.isOver()) {
    run.oracle.count('bytes')
    const pieces: Buffer[] = []
    for (let times = 1 + random.below(5); times > 0; times--) {
      const text = JSON.stringify(frameOf(random, run))
      const opcode = random.pick([1, 1, 1, 0, 2, 3, 8, 9, 10, 15])
      const payload = opcode === 8 ? Buffer.concat([noise(random, 2), Buffer.from('bye')]) : Buffer.from(text)
      const frame = clientFrame(payload, { opcode, fin: !random.once(4), masked: !random.once(8) })
      pieces.push(random.once(2) ? mutateBytes(random, frame) : frame)
    }
    if (random.once(10)) pieces.push(noise(random, 1 + random.below(2000)))
    await sendBytes(run, random, Buffer.concat(pieces))
  }
}

async function sendBytes(run: Run, random: Random, data: Buffer): Promise<void> {
  const socket = connect(run.port, '127.0.0.1')
  const chunks: Buffer[] = []
  const closed = new Promise<void>(resolve => socket.on('close', () => resolve()))
  socket.on('error', () => {})
  socket.on('data', chunk => chunks.push(chunk))
  socket.write(
    `GET /v1/socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer ${run.token}\r\n\r\n`,
  )
  const cut = random.below(data.length + 1)
  socket.write(data.subarray(0, cut))
  setTimeout(() => socket.write(data.subarray(cut)), random.below(10))
  // A peer that is waited for says nothing: half a frame is no fault.
  const patience = setTimeout(() => socket.destroy(), 60 + random.below(100))
  await closed
  clearTimeout(patience)
  const input = data.toString('hex')
  const all = Buffer.concat(chunks)
  const end = all.indexOf('\r\n\r\n')
  if (end < 0 || !all.toString('latin1', 0, 12).endsWith('101')) {
    if (all.length > 0) run.oracle.fail(`the handshake was answered ${all.toString('latin1', 0, 200)}`, input)
    return
  }
  let last: PeerCode | null = null
  for (const { opcode, payload } of framesOf(all.subarray(end + 4))) {
    if (opcode === 1) {
      const frame = run.oracle.frame(payload.toString(), input)
      if (frame?.type === 'error' && frame.id === undefined && frame.ref === undefined) last = frame.code as PeerCode
    } else if (opcode === 8) {
      const code = payload.length < 2 ? null : payload.readUInt16BE(0)
      run.oracle.closed(code, last, input, true)
    }
  }
}
