// Pacing that is the same for every sender: it is at most so many broadcasts ahead of what all clients have received
// together. A client process says so with one byte for each broadcast, on a connection of its own.
import { closeSync, openSync, writeSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { cpuMicros } from './child.ts'

export interface Pace {
  /** Broadcasts in all. */
  readonly turns: number
  /** Messages that go to each socket in one turn of the event loop. */
  readonly perTurn: number
  /** Broadcasts that may be under way. */
  readonly ahead: number
  /** A FIFO that gets a byte for each broadcast when it has been written: the clients stand still until then. */
  readonly gate?: string
}

export interface Spent {
  readonly cpuMicros: number
  /** Of that, outside the kernel: writing to a socket over loopback is mostly inside. */
  readonly userMicros: number
  readonly wallMs: number
}

const byte = Buffer.alloc(1)

export class Credits {
  readonly port: number
  #received = 0
  #wake: () => void = () => {}

  private constructor(port: number) {
    this.port = port
  }

  static async listen(): Promise<Credits> {
    const server = createServer(socket => {
      socket.on('error', () => {})
      socket.on('data', bytes => {
        credits.#received += bytes.length
        credits.#wake()
      })
    })
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    const credits = new Credits((server.address() as AddressInfo).port)
    return credits
  }

  /** Sends until every broadcast has been received by everybody. */
  async spend({ turns, perTurn, ahead, gate }: Pace, send: (perTurn: number) => Promise<void>): Promise<Spent> {
    this.#received = 0
    const fifo = gate === undefined ? null : openSync(gate, 'r+')
    const [cpu, { user }, start] = [cpuMicros(), process.cpuUsage(), performance.now()]
    for (let sent = 0; sent < turns; sent++) {
      await this.#until(sent - ahead + 1)
      await send(perTurn)
      if (fifo !== null) writeSync(fifo, byte)
    }
    await this.#until(turns)
    if (fifo !== null) closeSync(fifo)
    const userMicros = process.cpuUsage().user - user
    return { cpuMicros: cpuMicros() - cpu, userMicros, wallMs: performance.now() - start }
  }

  async #until(received: number): Promise<void> {
    while (this.#received < received) {
      await new Promise<void>(resolve => {
        this.#wake = resolve
      })
    }
  }
}
