// A temporary file for the changes of one commit that is too large for memory.
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { TidegateError } from '../../protocol/tidegate-error.ts'

/** Bytes written or read at once: the memory that a spool, and each walk of one, takes. A slow reader begins a walk for
 *  every half of its queue, each time at the beginning of a chunk: of a megabyte it would pass over most. */
export const chunkBytes = 1 << 17
/** Before each message: its length and the number of its relation, uint32 BE. */
export const headerBytes = 8

interface Start {
  readonly entry: number
  readonly position: number
}

/** Row values go through this file, so only its owner may read it, and it is unlinked as soon as it is open: a process
 *  that is killed leaves nothing behind. Its size is bounded by the disk of `folder` alone; a full one is SPOOL_FAILED.
 *  Synchronous, because a message is taken in or walked in microseconds and the kernel's cache takes the writes. */
export class Spool {
  readonly #file: number
  readonly #folder: string
  #removed: boolean
  #pending: Buffer | null = null
  #pendingBytes = 0
  #written = 0
  #entries = 0
  /** Where each chunk begins, about 50 bytes for every 128 KiB: a walk that begins in the middle skips to it. */
  readonly #starts: Start[] = []
  #closed = false

  /** @throws SPOOL_FAILED */
  constructor(folder: string = tmpdir()) {
    try {
      this.#folder = mkdtempSync(join(folder, 'tidegate-spool-'))
      this.#file = openSync(join(this.#folder, 'commit'), 'wx+', 0o600)
    } catch (cause) {
      throw spoolFailed(`no spool file in ${folder}`, cause)
    }
    this.#removed = removeFolder(this.#folder)
  }

  /** @throws SPOOL_FAILED */
  append(relation: number, message: Buffer): void {
    const size = headerBytes + message.length
    if (this.#pendingBytes + size > chunkBytes) this.#flush()
    if (this.#pendingBytes === 0) this.#starts.push({ entry: this.#entries, position: this.#written })
    this.#entries += 1
    this.#pending ??= Buffer.allocUnsafe(chunkBytes)
    const pending = size > chunkBytes ? Buffer.allocUnsafe(size) : this.#pending
    const at = size > chunkBytes ? 0 : this.#pendingBytes
    pending.writeUInt32BE(message.length, at)
    pending.writeUInt32BE(relation, at + 4)
    message.copy(pending, at + headerBytes)
    if (size > chunkBytes) this.#write(pending, size)
    else this.#pendingBytes += size
  }

  /** Messages as the file has them, each after its length and relation. @throws SPOOL_FAILED */
  appendEntries(bytes: Buffer, entries: number): void {
    this.#flush()
    this.#starts.push({ entry: this.#entries, position: this.#written })
    this.#entries += entries
    this.#write(bytes, bytes.length)
  }

  /** No more is appended. */
  finish(): void {
    this.#flush()
    this.#pending = null
  }

  /** The messages, read chunk by chunk. Each chunk is a new Buffer: a message that is kept keeps its chunk alive.
   *  @param from begins with the entry `startBefore(from).entry` */
  entries(from = 0): Iterable<readonly [relation: number, message: Buffer]> {
    return this.#walk(from, length => Buffer.allocUnsafeSlow(length))
  }

  /** The same through one Buffer: a message is there until the next is asked for. A million rows walked ten times would
   *  leave 500 MB of chunks to the garbage collector, which sees of each only a small object and lets them pile up. */
  passing(from = 0): Iterable<readonly [relation: number, message: Buffer]> {
    let shared: Buffer | null = null
    return this.#walk(from, length => {
      if (length > chunkBytes) return Buffer.allocUnsafeSlow(length)
      shared ??= Buffer.allocUnsafeSlow(chunkBytes)
      return shared.subarray(0, length)
    })
  }

  *#walk(from: number, allocate: (length: number) => Buffer): Generator<readonly [relation: number, message: Buffer]> {
    let { position } = this.startBefore(from)
    while (position < this.#written) {
      const chunk = this.#read(position, allocate(Math.min(chunkBytes, this.#written - position)))
      let at = 0
      while (at + headerBytes <= chunk.length) {
        const length = chunk.readUInt32BE(at)
        const relation = chunk.readUInt32BE(at + 4)
        const start = at + headerBytes
        if (start + length <= chunk.length) {
          yield [relation, chunk.subarray(start, start + length)]
        } else if (at === 0) {
          yield [relation, this.#read(position + start, allocate(length))]
        } else {
          break
        }
        at = start + length
      }
      position += at
    }
  }

  /** Bytes in the file: for each message its length and the number of its relation, uint32 BE, and the message. */
  get bytes(): number {
    return this.#written
  }

  /** Fills the Buffer with the file's bytes from this position on, wherever its messages begin. @throws SPOOL_FAILED */
  fill(target: Buffer, position: number): void {
    this.#read(position, target)
  }

  /** The last entry at or before number `entry` at which a walk can begin. */
  startBefore(entry: number): Start {
    let found: Start = { entry: 0, position: 0 }
    for (const start of this.#starts) {
      if (start.entry > entry) break
      found = start
    }
    return found
  }

  /** Closes and removes the file. A walk under way throws at its next chunk. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#pending = null
    closeSync(this.#file)
    if (!this.#removed) this.#removed = removeFolder(this.#folder)
  }

  #flush(): void {
    if (this.#pendingBytes > 0) this.#write(this.#pending!, this.#pendingBytes)
    this.#pendingBytes = 0
  }

  #write(bytes: Buffer, length: number): void {
    try {
      for (let done = 0; done < length; ) {
        const count = writeSync(this.#file, bytes, done, length - done, this.#written)
        done += count
        this.#written += count
      }
    } catch (cause) {
      throw spoolFailed(`the spool file stopped at ${this.#written} bytes`, cause)
    }
  }

  /** Fills the chunk. */
  #read(position: number, chunk: Buffer): Buffer {
    const { length } = chunk
    // The number of a closed file may already be another file's.
    if (this.#closed) throw new TidegateError('SPOOL_FAILED', 'a commit was walked after it was released')
    try {
      for (let done = 0; done < length; ) {
        const count = readSync(this.#file, chunk, done, length - done, position + done)
        if (count === 0) throw new Error(`the file ends at byte ${position + done}`)
        done += count
      }
    } catch (cause) {
      throw spoolFailed('the spool file cannot be read', cause)
    }
    return chunk
  }
}

/** Windows refuses to remove an open file: there it goes with `close`. */
function removeFolder(folder: string): boolean {
  try {
    rmSync(folder, { recursive: true, force: true })
    return true
  } catch {
    return false
  }
}

function spoolFailed(what: string, cause: unknown): TidegateError {
  const reason = cause instanceof Error ? cause.message : String(cause)
  const remedy = 'give the temporary folder space (TMPDIR names it)'
  return new TidegateError('SPOOL_FAILED', `a large transaction could not be spooled: ${what}: ${reason}; ${remedy}`, {
    cause,
  })
}
