// The watched rows in the page: what comes lights up and calms down, what goes fades. At most so many rows, refreshed at most so often.
import { el, setText, throttled } from './dom.js'
import { count } from './format.js'
import { keepOneReachable, walkRows } from './rows.js'

/** @typedef {import('./watched-rows.js').WatchedRows} WatchedRows */
/** @typedef {import('./watched-rows.js').Step} Step */

const maxShown = 200
const maxColumns = 30
/** Longer values are cut: a cell is no reader. */
const maxText = 200
/** When so many change at once, light would be noise. */
const maxLit = 60
const everyMs = 150
const litMs = 900

export class WatchTable {
  #head = el('tr')
  #body = el('tbody')
  #note = el('p', { class: 'soft note' })
  /** @type {Map<string, HTMLTableRowElement>} */
  #shown = new Map()
  /** @type {Map<string, 'appeared' | 'changed'>} since the page was last touched */
  #fresh = new Map()
  /** @type {readonly string[]} */
  #columns = []
  /** @type {WatchedRows | null} */
  #rows = null
  #isAnew = true
  #refresh = throttled(() => this.#render(), everyMs)
  #choose
  element

  /** @param {(key: import('./watched-rows.js').Row) => void} choose */
  constructor(choose) {
    this.#choose = choose
    const caption = el('caption', { class: 'unseen' }, 'Rows of the watched table')
    const table = el('table', { class: 'watched' }, caption, el('thead', {}, this.#head), this.#body)
    this.element = el('div', { class: 'table', hidden: true }, el('div', { class: 'scroll' }, table), this.#note)
    walkRows(this.#body, row => {
      const found = this.#rows?.rows.get(row.dataset.row ?? '')
      if (found !== undefined && this.#rows !== null) this.#choose(this.#rows.keyOf(found))
    })
  }

  /** @param {WatchedRows} rows @param {Step} step */
  take(rows, { isAnew, appeared, changed, left }) {
    this.#rows = rows
    if (isAnew) this.#isAnew = true
    for (const name of appeared) this.#fresh.set(name, 'appeared')
    for (const name of changed) if (!this.#fresh.has(name)) this.#fresh.set(name, 'changed')
    for (const { name } of left) this.#fresh.delete(name)
    this.#refresh()
  }

  clear() {
    this.#rows = null
    this.#refresh()
  }

  #render() {
    const rows = this.#rows
    this.element.hidden = rows === null || (rows.rows.size === 0 && !rows.isWhole)
    if (rows === null) return this.#body.replaceChildren()
    const names = rows.names.slice(0, maxShown)
    this.#setColumns(rows.rows.get(names[0] ?? '') ?? {}, rows)
    const isCalm = this.#isAnew || this.#fresh.size > maxLit
    if (rows.isWhole) this.#isAnew = false
    const wanted = new Set(names)
    for (const [name, row] of this.#shown) if (!wanted.has(name)) this.#leave(name, row, isCalm)
    /** @type {Element | null} */
    let before = null
    for (const name of names) {
      const row = this.#rowOf(name, rows)
      const light = this.#fresh.get(name)
      if (light !== undefined && !isCalm) this.#light(row, light)
      /** @type {Element | null} */
      let follower = before === null ? this.#body.firstElementChild : before.nextElementSibling
      while (follower !== null && follower !== row && follower.hasAttribute('data-left'))
        follower = follower.nextElementSibling
      if (follower !== row) this.#body.insertBefore(row, follower)
      before = row
    }
    this.#fresh.clear()
    const more = rows.names.length - names.length
    const all = rows.names.length === 1 ? '1 row' : `${count(rows.names.length)} rows`
    setText(
      this.#note,
      more > 0
        ? `${all}, ${count(more)} of them not shown.`
        : rows.names.length === 0
          ? 'Such a user sees no row.'
          : `${all}.`,
    )
    keepOneReachable(this.#body)
  }

  /** @param {import('./watched-rows.js').Row} first @param {WatchedRows} rows */
  #setColumns(first, { key }) {
    const found = Object.keys(first)
    const columns = [...key.filter(each => found.includes(each)), ...found.filter(each => !key.includes(each))].slice(
      0,
      maxColumns,
    )
    if (columns.length === 0 || columns.join('\n') === this.#columns.join('\n')) return
    this.#columns = columns
    this.#head.replaceChildren(...columns.map(name => el('th', { scope: 'col', class: kindOf(first[name]) }, name)))
    this.#shown.clear()
    this.#body.replaceChildren()
  }

  /** @param {string} name @param {WatchedRows} rows */
  #rowOf(name, { rows }) {
    let row = this.#shown.get(name)
    if (row === undefined) {
      row = el('tr', { 'data-row': name, tabindex: '-1', class: 'opens' }, ...this.#columns.map(() => el('td')))
      this.#shown.set(name, row)
    }
    const values = rows.get(name) ?? {}
    for (const [place, column] of this.#columns.entries()) {
      const cell = /** @type {HTMLTableCellElement} */ (row.cells[place])
      const value = values[column]
      cell.className = kindOf(value)
      setText(cell, textOf(value))
    }
    return row
  }

  /** @param {HTMLElement} row @param {'appeared' | 'changed' | 'left'} light */
  #light(row, light) {
    row.dataset.light = light
    setTimeout(() => delete row.dataset.light, litMs)
  }

  /** @param {string} name @param {HTMLTableRowElement} row @param {boolean} isCalm */
  #leave(name, row, isCalm) {
    this.#shown.delete(name)
    // Of one that only slid out of what is shown nothing happened.
    if (isCalm || this.#rows?.rows.has(name)) return row.remove()
    // Fading is for the eye: for everything else it is gone now.
    row.removeAttribute('data-row')
    row.removeAttribute('tabindex')
    row.setAttribute('aria-hidden', 'true')
    row.dataset.left = ''
    setTimeout(() => row.remove(), litMs)
  }
}

/** @param {unknown} value */
const kindOf = value => (value === null ? 'soft' : typeof value === 'number' ? 'number' : '')

/** @param {unknown} value */
function textOf(value) {
  if (value === undefined) return ''
  const text = value === null ? 'NULL' : typeof value === 'string' ? value : JSON.stringify(value)
  return text.length > maxText ? `${text.slice(0, maxText)}…` : text
}
