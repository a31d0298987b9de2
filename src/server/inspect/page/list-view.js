// A view of a list that the node answers: a table with a field to search it, asked for again while it is looked at.
import { DataTable } from './data-table.js'
import { byId, el, setText } from './dom.js'
import { poll } from './polled.js'
import { addressOf } from './tabs.js'

/**
 * @template Item
 * @typedef {object} ListOptions
 * @property {string} name
 * @property {string} title
 * @property {string} lead one sentence
 * @property {string} path
 * @property {() => import('./api.js').Api} api
 * @property {(answer: any) => { readonly items: readonly Item[], readonly more: number }} itemsOf
 * @property {(item: Item) => string} searched the text that is searched, for what one types
 * @property {string} findTitle
 * @property {import('./data-table.js').TableOptions<Item>} table
 */

const everyMs = 2000

/** @template Item */
export class ListView {
  #options
  #table
  /** @type {readonly Item[]} */
  #items = []
  #more = 0
  #search
  #said = el('p', { class: 'soft said', role: 'status' })
  #problem = el('p', { class: 'problem', role: 'alert', hidden: true })
  /** @type {import('./polled.js').Polling | null} */
  #polling = null
  name
  title
  element

  /** @param {ListOptions<Item>} options */
  constructor(options) {
    this.#options = options
    this.name = options.name
    this.title = options.title
    this.#table = new DataTable({ ...options.table, onChange: () => this.#remember() })
    const id = `find-${options.name}`
    this.#search = el('input', {
      id,
      type: 'search',
      placeholder: options.findTitle,
      autocomplete: 'off',
      spellcheck: 'false',
    })
    this.#search.addEventListener('input', () => {
      this.#render()
      this.#remember()
    })
    this.element = el(
      'section',
      { class: 'list' },
      el('div', { class: 'head' }, el('h2', {}, options.title), el('p', { class: 'soft lead' }, options.lead)),
      el(
        'div',
        { class: 'tools' },
        el('label', { for: id, class: 'unseen' }, options.findTitle),
        this.#search,
        this.#said,
      ),
      this.#problem,
      this.#table.element,
    )
  }

  /** @param {URLSearchParams} parameters */
  show(parameters) {
    const find = parameters.get('find') ?? ''
    if (this.#search.value !== find) this.#search.value = find
    const order = parameters.get('sort')
    if (order !== null && order !== this.#table.order) this.#table.order = order
    this.#render()
    this.#polling ??= poll({
      api: this.#options.api(),
      path: this.#options.path,
      everyMs,
      take: answer => {
        const { items, more } = this.#options.itemsOf(answer)
        this.#items = items
        this.#more = more
        this.#render()
      },
      tell: problem => {
        this.#problem.hidden = problem === null
        setText(this.#problem, problem ?? '')
      },
    })
  }

  hide() {
    this.#polling?.stop()
    this.#polling = null
  }

  find() {
    this.#search.focus()
    this.#search.select()
  }

  escape() {
    if (this.#table.closeRow()) return true
    if (this.#search.value === '') return false
    this.#search.value = ''
    this.#render()
    this.#remember()
    return true
  }

  #render() {
    const words = this.#search.value
      .toLowerCase()
      .split(/\s+/)
      .filter(word => word !== '')
    const found = this.#items.filter(item => {
      const text = this.#options.searched(item).toLowerCase()
      return words.every(word => text.includes(word))
    })
    this.#table.show(found)
    const more = this.#more === 0 ? '' : `; ${this.#more} smaller ones are not listed`
    setText(
      this.#said,
      words.length === 0 ? `${this.#items.length} in all${more}` : `${found.length} of ${this.#items.length}${more}`,
    )
  }

  /** In the address, so that it can be sent to somebody; without a step in the browser's history for each letter. */
  #remember() {
    const main = byId('main', HTMLElement)
    if (!main.contains(this.element) || this.element.hidden) return
    history.replaceState(null, '', addressOf(this, { find: this.#search.value, sort: this.#table.order }))
  }
}
