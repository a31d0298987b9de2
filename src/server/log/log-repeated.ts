// What clients, or a loop, bring about again and again is told once, and counted from then on: else whoever can cause a line fills the disk.
import type { Log } from './log.ts'

/** Past it lines of new kinds count as one. Each holds a timer. */
const maxKinds = 200
const tellEveryMs = 60_000

type Level = 'warn' | 'error'
type Fields = Readonly<Record<string, unknown>>

interface Kind {
  readonly level: Level
  fields: Fields
  text: string
  /** Since it was told last. */
  count: number
}

export class Repeated {
  readonly #log: Log
  readonly #everyMs: number
  readonly #kinds = new Map<string, Kind>()

  constructor(log: Log, everyMs: number = tellEveryMs) {
    this.#log = log
    this.#everyMs = everyMs
  }

  /** Lines of one kind have the same text, code, table and role. The first is told at once; then, at most once a minute, the last of
   *  them with `count`: how many there were since. */
  warn(fields: Fields, text: string): void {
    this.#tell('warn', fields, text)
  }

  /** See `warn`. */
  error(fields: Fields, text: string): void {
    this.#tell('error', fields, text)
  }

  /** Tells what was counted and not told yet: nobody would, once the process has ended. */
  flush(): void {
    for (const kind of this.#kinds.values()) this.#tellCount(kind)
  }

  #tell(level: Level, fields: Fields, text: string): void {
    const own = [level, text, fields.code, fields.table, fields.role].join('\n')
    const key = this.#kinds.has(own) || this.#kinds.size < maxKinds ? own : others
    const known = this.#kinds.get(key)
    if (known === undefined) {
      this.#kinds.set(key, { level, fields, text, count: 0 })
      this.#log[level](fields, text)
      this.#tellLater(key)
      return
    }
    known.fields = fields
    known.text = text
    known.count += 1
  }

  #tellLater(key: string): void {
    setTimeout(() => {
      const kind = this.#kinds.get(key)!
      this.#kinds.delete(key)
      if (kind.count === 0) return
      this.#tellCount(kind)
      this.#kinds.set(key, kind)
      this.#tellLater(key)
    }, this.#everyMs).unref()
  }

  #tellCount(kind: Kind): void {
    const { level, fields, text, count } = kind
    if (count === 0) return
    kind.count = 0
    this.#log[level]({ ...fields, count }, text)
  }
}

const others = 'others'

const ofLogs = new WeakMap<Log, Repeated>()

/** One for each log. */
export function repeated(log: Log): Repeated {
  const known = ofLogs.get(log)
  if (known !== undefined) return known
  const made = new Repeated(log)
  ofLogs.set(log, made)
  return made
}
