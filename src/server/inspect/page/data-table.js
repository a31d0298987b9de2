// A table of things with a name each: sorted by a column, walked by keys, one opened at a time. What stays is not touched.
import { el, setAttribute, setText } from './dom.js'
import { keepOneReachable, walkRows } from './rows.js'

/**
 * @template Item
 * @typedef {object} Column
 * @property {string} title
 * @property {(item: Item) => string} text
 * @property {(item: Item) => number | string} [by] what it is sorted by; left out: it is not
 * @property {string} [kind] classes of its cells: `number`, `wide` (not on a narrow page), `code`, `main`
 * @property {(item: Item) => string | null} [tone] `good`, `wait`, `bad`
 */

/**
 * @template Item
 * @typedef {object} TableOptions
 * @property {string} caption
 * @property {readonly Column<Item>[]} columns
 * @property {(item: Item) => string} nameOf different for each
 * @property {((item: Item) => Node) | null} detailOf what an opened row shows below itself
 * @property {string} sortedBy a column's title
 * @property {string} empty what is said in place of rows
 * @property {() => void} [onChange] another order was chosen, or a row opened
 */

/** @template Item */
export class DataTable {
  /** Rows in the page at most; the others are counted. */
  static maxRows = 300
  /** Of a cell: the rest stands in the detail. */
  static maxText = 200

  /** @type {TableOptions<Item>} */
  #options
  #body = el('tbody')
  #heads
  #note = el('p', { class: 'soft note', hidden: true })
  /** @type {Map<string, HTMLTableRowElement>} those in the page */
  #rows = new Map()
  /** @type {readonly Item[]} */
  #items = []
  /** @type {string | null} */
  #opened = null
  #sortedBy
  #isDescending = true

  /** @param {TableOptions<Item>} options */
  constructor(options) {
    this.#options = options
    this.#sortedBy = options.sortedBy
    this.#heads = options.columns.map(column => this.#headOf(column))
    const table = el('table', {}, el('caption', { class: 'unseen' }, options.caption))
    table.append(el('thead', {}, el('tr', {}, ...this.#heads)), this.#body)
    this.element = el('div', { class: 'table' }, table, this.#note)
    walkRows(this.#body, row => this.#toggle(row.dataset.row ?? ''))
  }

  /** `-Subscribers`: the greatest first. */
  get order() {
    return `${this.#isDescending ? '-' : ''}${this.#sortedBy}`
  }

  set order(order) {
    const title = order.replace(/^-/, '')
    if (!this.#options.columns.some(column => column.title === title && column.by !== undefined)) return
    this.#sortedBy = title
    this.#isDescending = order.startsWith('-')
    this.#render()
  }

  /** @param {readonly Item[]} items */
  show(items) {
    this.#items = items
    this.#render()
  }

  /** @returns whether one was open */
  closeRow() {
    const wasOpen = this.#opened !== null
    this.#opened = null
    this.#render()
    return wasOpen
  }

  /** @param {Column<Item>} column */
  #headOf({ title, by, kind = '' }) {
    if (by === undefined) return el('th', { scope: 'col', class: kind }, title)
    const button = el('button', { type: 'button', class: 'sort' }, title)
    button.addEventListener('click', () => {
      this.#isDescending = this.#sortedBy === title ? !this.#isDescending : kind.includes('number')
      this.#sortedBy = title
      this.#render()
      this.#options.onChange?.()
    })
    return el('th', { scope: 'col', class: kind }, button)
  }

  /** @param {string} name */
  #toggle(name) {
    if (this.#options.detailOf === null) return
    this.#opened = this.#opened === name ? null : name
    this.#render()
  }

  #sorted() {
    const by = this.#options.columns.find(({ title }) => title === this.#sortedBy)?.by ?? this.#options.nameOf
    const sign = this.#isDescending ? -1 : 1
    const compare = (/** @type {string | number} */ a, /** @type {string | number} */ b) => (a < b ? -1 : a > b ? 1 : 0)
    return [...this.#items].sort(
      (a, b) => sign * compare(by(a), by(b)) || compare(this.#options.nameOf(a), this.#options.nameOf(b)),
    )
  }

  #render() {
    const { columns, nameOf, detailOf, empty } = this.#options
    for (const [place, { title, by }] of columns.entries()) {
      const direction = this.#isDescending ? 'descending' : 'ascending'
      const isSorted = by !== undefined && title === this.#sortedBy
      setAttribute(/** @type {Element} */ (this.#heads[place]), 'aria-sort', isSorted ? direction : null)
    }
    const shown = this.#sorted().slice(0, DataTable.maxRows)
    const wanted = new Set(shown.map(nameOf))
    for (const [name, row] of this.#rows) {
      if (wanted.has(name)) continue
      this.#rows.delete(name)
      if (row.nextElementSibling?.hasAttribute('data-detail')) row.nextElementSibling.remove()
      row.remove()
    }
    /** @type {Element | null} the row before */
    let before = null
    for (const item of shown) {
      const row = this.#rowOf(item)
      const isOpen = detailOf !== null && this.#opened === nameOf(item)
      if (detailOf !== null) setAttribute(row, 'aria-expanded', String(isOpen))
      // Moved only if it stands elsewhere: else the focus, and what is marked in it, would go.
      const follower = /** @type {Element | null} */ (
        before === null ? this.#body.firstElementChild : before.nextElementSibling
      )
      const old = row.nextElementSibling
      const detail = old?.hasAttribute('data-detail') ? old : null
      if (follower !== row) this.#body.insertBefore(row, follower)
      before = row
      if (!isOpen) detail?.remove()
      else before = this.#detailAfter(row, detail, detailOf(item))
    }
    setText(this.#note, this.#items.length === 0 ? empty : `${this.#items.length - shown.length} more are not shown.`)
    this.#note.hidden = this.#items.length > 0 && this.#items.length === shown.length
    keepOneReachable(this.#body)
  }

  /** @param {Item} item */
  #rowOf(item) {
    const { columns, nameOf, detailOf } = this.#options
    const name = nameOf(item)
    let row = this.#rows.get(name)
    if (row === undefined) {
      const made = el('tr', { 'data-row': name, tabindex: '-1', class: detailOf === null ? '' : 'opens' })
      for (const { kind = '' } of columns) made.append(el('td', { class: kind }))
      this.#rows.set(name, made)
      row = made
    }
    for (const [place, { text, tone }] of columns.entries()) {
      const cell = /** @type {HTMLTableCellElement} */ (row.cells[place])
      const whole = text(item)
      setText(cell, whole.length > DataTable.maxText ? `${whole.slice(0, DataTable.maxText)}…` : whole)
      if (tone !== undefined) setAttribute(cell, 'data-tone', tone(item))
    }
    return row
  }

  /** @param {Element} row @param {Element | null} old @param {Node} content */
  #detailAfter(row, old, content) {
    const cell = old?.firstElementChild ?? el('td', { colspan: String(this.#options.columns.length) })
    const held = old ?? el('tr', { 'data-detail': true }, cell)
    const fresh = el('div', { class: 'detail' }, content)
    if (!cell.firstElementChild?.isEqualNode(fresh)) cell.replaceChildren(fresh)
    if (row.nextElementSibling !== held) row.after(held)
    return held
  }
}
