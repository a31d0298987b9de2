// The newest commits, the last on top. At most so many rows however many come, and none that moves while somebody stands on it.
import { el } from './dom.js'
import { barOf, bytes, clock, count, duration } from './format.js'
import { keepOneReachable, walkRows } from './rows.js'
import { stages } from './stages.js'

/** @typedef {import('../../figures/commit-trace.ts').CommitTrace} CommitTrace */

const maxRows = 40
/** Of the commits told at once: four times a second, more cannot be read. */
const maxFresh = 8

const heads = /** @type {const} */ ([
  ['Committed', 'code'],
  ['Tables', 'main'],
  ['Changes', 'number wide'],
  ['Size', 'number wide'],
  ['Audiences', 'number wide'],
  ['Deliveries', 'number'],
  ['Took', 'number'],
  ['In each stage', 'ways'],
])

export class CommitTable {
  #body = el('tbody', {}, el('tr', { class: 'empty' }, el('td', { colspan: String(heads.length) }, 'No commit yet.')))
  /** @type {WeakMap<Element, CommitTrace>} */
  #traces = new WeakMap()
  #select
  /** @type {Element | null} */
  #selected = null
  element

  /** @param {(trace: CommitTrace) => void} select */
  constructor(select) {
    this.#select = select
    const head = el('tr', {}, ...heads.map(([title, kind]) => el('th', { scope: 'col', class: kind }, title)))
    const caption = el('caption', { class: 'unseen' }, 'Newest commits')
    this.element = el(
      'div',
      { class: 'table' },
      el('table', { class: 'commits' }, caption, el('thead', {}, head), this.#body),
    )
    walkRows(this.#body, row => this.#choose(row))
  }

  /** Whether a row has the focus. */
  get isStoodOn() {
    return this.#body.contains(document.activeElement)
  }

  /** @param {readonly CommitTrace[]} traces the newest last @returns how many of them are shown */
  add(traces) {
    const fresh = traces.slice(-maxFresh)
    if (fresh.length === 0) return 0
    this.#body.querySelector('.empty')?.remove()
    this.#body.prepend(...fresh.map(trace => this.#rowOf(trace)).reverse())
    while (this.#body.childElementCount > maxRows) this.#body.lastElementChild?.remove()
    keepOneReachable(this.#body)
    return fresh.length
  }

  unselect() {
    this.#selected?.removeAttribute('aria-selected')
    this.#selected = null
  }

  /** @param {Element} row */
  #choose(row) {
    const trace = this.#traces.get(row)
    if (trace === undefined) return
    this.unselect()
    this.#selected = row
    row.setAttribute('aria-selected', 'true')
    this.#select(trace)
  }

  /** @param {CommitTrace} trace */
  #rowOf(trace) {
    const { lsn, committedAtMs, tables, changes, audiences, deliveries } = trace
    const texts = [
      clock(committedAtMs),
      tables.join(', ') || 'no row',
      count(changes),
      bytes(trace.bytes),
      count(audiences),
      count(deliveries),
      duration(tookMsOf(trace)),
    ]
    const cells = texts.map((text, place) => el('td', { class: heads[place]?.[1] ?? '' }, text))
    if (tables.length === 0) cells[1]?.classList.replace('main', 'soft')
    const row = el(
      'tr',
      { 'data-row': lsn, tabindex: '-1', class: 'opens' },
      ...cells,
      el('td', { class: 'ways' }, waysOf(trace)),
    )
    this.#traces.set(row, trace)
    return row
  }
}

/** From its first stage here to its last. @param {CommitTrace} trace @returns {number | null} milliseconds */
export function tookMsOf({ spans }) {
  if (spans.length === 0) return null
  const ends = spans.map(({ startedAtMs, durationMs }) => startedAtMs + durationMs)
  return Math.max(...ends) - Math.min(...spans.map(({ startedAtMs }) => startedAtMs))
}

/** A bar for each stage, as high as the logarithm of its time. @param {CommitTrace} trace */
function waysOf({ spans }) {
  const said = spans.map(({ stage, durationMs }) => `${stage} ${duration(durationMs)}`).join(', ')
  const ways = el('span', { class: 'bars', role: 'img', 'aria-label': said, title: said })
  for (const { stage } of stages) {
    const durationMs = spans.find(span => span.stage === stage)?.durationMs
    const bar = el('i', { 'data-stage': stage })
    if (durationMs !== undefined) bar.style.height = `${Math.round(100 * barOf(durationMs))}%`
    ways.append(bar)
  }
  return ways
}
