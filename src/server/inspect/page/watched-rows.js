// The rows of a watched table, as its events tell them. Pure.

/** @typedef {{ readonly [column: string]: unknown }} Row */

/**
 * What one event did, by the rows' names.
 * @typedef {object} Step
 * @property {boolean} isAnew all rows were replaced
 * @property {readonly string[]} appeared
 * @property {readonly string[]} changed
 * @property {readonly { readonly name: string, readonly key: Row }[]} left
 */

/** @type {Step} */
const nothing = { isAnew: false, appeared: [], changed: [], left: [] }

export class WatchedRows {
  /** Past it the watch ends: `isFull`. */
  static maxRows = 20_000

  /** Columns of the primary key. @type {readonly string[]} */
  key = []
  /** The snapshot is there, and nothing is missing. */
  isWhole = false
  /** @type {Map<string, Row>} */
  rows = new Map()
  /** As they stand in the page: as the node orders them, or what came last first. @type {string[]} */
  names = []
  /** @type {any[]} changes of a delta whose last part has not come */
  #parts = []

  get isFull() {
    return this.rows.size > WatchedRows.maxRows
  }

  /** @param {Row} row */
  nameOf(row) {
    return JSON.stringify(this.key.map(column => row[column]))
  }

  /** @param {Row} row */
  keyOf(row) {
    return Object.fromEntries(this.key.map(column => [column, row[column]]))
  }

  /** @param {import('./events.js').ServerEvent} event @returns {Step} */
  take({ event, data }) {
    if (event === 'subscribed') {
      this.key = data.key
      return this.#clear()
    }
    if (event === 'resync') return this.#clear()
    if (event === 'snapshot') return this.#takeSnapshot(data)
    if (event !== 'delta') return nothing
    this.#parts.push(...data.changes)
    if (!data.done) return nothing
    return this.#apply(this.#parts.splice(0))
  }

  #clear() {
    this.rows.clear()
    this.names = []
    this.#parts = []
    this.isWhole = false
    return { ...nothing, isAnew: true }
  }

  /** @param {{ rows: Row[], gone?: Row[], done: boolean }} part */
  #takeSnapshot({ rows, gone = [], done }) {
    for (const key of gone) this.rows.delete(this.nameOf(key))
    for (const row of rows) this.rows.set(this.nameOf(row), row)
    this.names = [...this.rows.keys()]
    this.isWhole = done
    return { ...nothing, isAnew: true }
  }

  /** @param {any[]} changes */
  #apply(changes) {
    /** @type {Map<string, 'appeared' | 'changed'>} */
    const touched = new Map()
    /** @type {Map<string, Row>} */
    const left = new Map()
    /** @type {Map<string | null, string[]>} by the row that each follows */
    const placed = new Map()
    for (const change of changes) {
      if (change.op === 'truncate') {
        for (const [name, row] of this.rows) left.set(name, this.keyOf(row))
        this.rows.clear()
        touched.clear()
        continue
      }
      const name = this.nameOf(change.key)
      if (change.op === 'delete') {
        this.rows.delete(name)
        touched.delete(name)
        left.set(name, change.key)
        continue
      }
      const isNew = change.op === 'insert'
      this.rows.set(name, isNew ? change.row : { ...this.rows.get(name), ...change.set })
      // Deleted and inserted by one delta: it stands there, changed.
      touched.set(name, isNew && !left.delete(name) ? 'appeared' : 'changed')
      if (change.after === undefined) continue
      const after = change.after === null ? null : this.nameOf(change.after)
      placed.set(after, [...(placed.get(after) ?? []), name])
    }
    const namesOf = (/** @type {string} */ what) =>
      [...touched].filter(([, each]) => each === what).map(([name]) => name)
    const step = { isAnew: false, appeared: namesOf('appeared'), changed: namesOf('changed') }
    this.#order(step.appeared, placed)
    return { ...step, left: [...left].map(([name, key]) => ({ name, key })) }
  }

  /** @param {readonly string[]} appeared @param {Map<string | null, string[]>} placed */
  #order(appeared, placed) {
    const moved = new Set([...placed.values()].flat())
    const fresh = appeared.filter(name => !moved.has(name)).reverse()
    const staying = this.names.filter(name => this.rows.has(name) && !moved.has(name))
    if (moved.size === 0) {
      this.names = [...fresh, ...staying]
      return
    }
    /** @type {string[]} */
    const names = []
    const add = (/** @type {string | null} */ first) => {
      // A chain may be as long as the window: a loop, not a recursion.
      const waiting = [first]
      for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
        if (name !== null) names.push(name)
        const followers = placed.get(name) ?? []
        placed.delete(name)
        waiting.push(...followers.toReversed())
      }
    }
    add(null)
    for (const name of [...staying, ...fresh]) add(name)
    this.names = names.filter(name => this.rows.has(name))
  }
}
