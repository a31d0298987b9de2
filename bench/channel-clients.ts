// Members of one channel, many sockets in one process. The first also sends.
//
// They read only when a broadcast has been written whole, never while it is: what a write costs a server then does not hang on how
// much the other end of loopback TCP does with the same socket at the same moment, as if members were on machines of their own. When
// it has, one more member of each node knows, who entered last and is written to last, and who reads in a thread of its own.
import { Worker } from 'node:worker_threads'
import { answer } from './child.ts'
import { Member, type Members } from './member.ts'

export interface Broadcasts {
  readonly count: number
  /** So many at a time: the next go out when these have reached everybody. */
  readonly atOnce: number
  /** JSON text. */
  readonly payload: string
}

export interface Latencies {
  readonly deliveries: number
  /** Milliseconds from the sender's clock to the member's. */
  readonly p50: number
  readonly p99: number
  readonly max: number
}

const members: Member[] = []
let received = 0
let present = 0
let isTimed = false
let latencies: number[] = []
let wake: () => void = () => {}

const microsNow = (): number => Math.round((performance.timeOrigin + performance.now()) * 1000)

async function until(condition: () => boolean, what: string, timeoutMs = 180_000): Promise<void> {
  const deadline = Date.now() + timeoutMs
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`timed out: ${what}; ${received} received`)
    let timer: NodeJS.Timeout | undefined
    await Promise.race([
      new Promise<void>(resolve => (wake = resolve)),
      new Promise(resolve => (timer = setTimeout(resolve, 50))),
    ])
    clearTimeout(timer)
  }
}

const told = {
  opened: () => wake(),
  joined: () => wake(),
  present() {
    present += 1
  },
  delivered(text: () => string) {
    received += 1
    if (isTimed) {
      const sent = /"sent_us":(\d+)/.exec(text())
      if (sent !== null) latencies.push(microsNow() - Number(sent[1]))
    }
    wake()
  },
}

/** Those who are written to last. */
class Last {
  readonly #members: Members
  /** How many are in, and how many messages they have got. */
  readonly #counts = new Int32Array(new SharedArrayBuffer(8))
  #worker: Worker | null = null

  constructor(members: Members) {
    this.#members = { ...members, count: members.ports.length, tokens: members.tokens.slice(0, 1) }
  }

  get count(): number {
    return this.#members.count
  }

  join(): void {
    this.#worker = new Worker(new URL('./last-members.ts', import.meta.url), {
      workerData: { members: this.#members, counts: this.#counts },
    })
    this.#worker.on('error', error => process.stderr.write(`the last members failed: ${error.message}\n`))
    this.#wait(0, this.count)
  }

  /** Blocks this thread until each of them has got so many messages in all. */
  waitFor(messages: number): void {
    this.#wait(1, messages * this.count)
  }

  get received(): number {
    return this.#counts[1]!
  }

  async close(): Promise<void> {
    await this.#worker?.terminate()
  }

  #wait(at: 0 | 1, least: number): void {
    const deadline = Date.now() + 60_000
    for (let count = Atomics.load(this.#counts, at); count < least; count = Atomics.load(this.#counts, at)) {
      if (Date.now() > deadline) throw new Error(`the last members have ${count} of ${least}`)
      Atomics.wait(this.#counts, at, count, 1000)
    }
  }
}

let last: Last | null = null

answer(
  {
    async connect(of: Members) {
      last = new Last(of)
      // So many at a time that the listening queue of a server does not overflow.
      for (let from = 0; from < of.count; from += 200) {
        const batch: Member[] = []
        for (let i = from; i < Math.min(from + 200, of.count); i++) batch.push(new Member(of, i, told))
        members.push(...batch)
        await until(() => batch.every(member => member.isOpen), `opening of ${from}`)
      }
    },
    /** All of them, evenly over the time. @returns milliseconds until the last had joined */
    async join({ overMs }: { overMs: number }) {
      const beganAt = performance.now()
      for (const [i, member] of members.entries()) {
        const aheadMs = beganAt + (overMs * i) / members.length - performance.now()
        if (aheadMs > 5) await new Promise(resolve => setTimeout(resolve, aheadMs))
        else if (overMs === 0 && i % 200 === 0)
          await until(() => members.slice(0, i).every(m => m.hasJoined), 'joining')
        member.join()
      }
      await until(() => members.every(member => member.hasJoined), 'joining')
      return performance.now() - beganAt
    },
    /** So that broadcasts can be told whole. */
    joinLast: () => last!.join(),
    /** Resolves when every member has got every one of them. @returns deliveries */
    async broadcast({ count, atOnce, payload }: Broadcasts) {
      const before = last!.received / last!.count
      received = 0
      for (let sent = 0; sent < count; ) {
        for (let i = 0; i < atOnce && sent < count; i++, sent++) members[0]!.send(payload)
        // It leaves in a turn of its own.
        await new Promise(resolve => setImmediate(resolve))
        last!.waitFor(before + sent)
        await until(() => received >= sent * members.length, `broadcast ${sent}`)
      }
      return received + count * last!.count
    },
    /** Broadcasts that say when they were sent, and what their members say of it. */
    async timed({ everyMs, forMs }: { everyMs: number; forMs: number }): Promise<Latencies> {
      isTimed = true
      latencies = []
      let sent = 0
      const beganAt = performance.now()
      while (performance.now() - beganAt < forMs) {
        members[0]!.send(`{"sent_us":${microsNow()}}`)
        sent += 1
        await new Promise(resolve => setTimeout(resolve, beganAt + sent * everyMs - performance.now()))
      }
      await until(() => latencies.length >= sent * members.length, 'the last timed broadcast')
      isTimed = false
      const sorted = latencies.sort((a, b) => a - b)
      const at = (p: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))]! / 1000
      return { deliveries: sorted.length, p50: at(0.5), p99: at(0.99), max: at(1) }
    },
    counts: () => ({ received, present }),
  },
  () => last?.close(),
)
