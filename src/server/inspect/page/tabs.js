// The views, each at an address of its own behind the `#`: links, the buttons of the browser and reloading work.
import { el } from './dom.js'

/**
 * @typedef {object} View
 * @property {string} name as in `#/stream`
 * @property {string} title
 * @property {HTMLElement} element
 * @property {(parameters: URLSearchParams) => void} show it is looked at, or its address changed
 * @property {() => void} hide
 * @property {() => boolean} [escape] closes what is open in it; returns whether something was
 * @property {() => void} [find] goes to where one searches
 * @property {() => void} [pause]
 */

/** @param {View} view @param {Readonly<Record<string, string>>} [parameters] empty ones are left out */
export function addressOf({ name }, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== ''))
  return `#/${name}${query.size === 0 ? '' : `?${query}`}`
}

export class Tabs {
  #views
  /** @type {View} */
  #current
  #tabs

  /**
   * @param {HTMLElement} list
   * @param {HTMLElement} main
   * @param {readonly [View, ...View[]]} views
   */
  constructor(list, main, views) {
    this.#views = views
    this.#current = views[0]
    this.#tabs = views.map(({ name, title }, place) => {
      const attributes = { role: 'tab', id: `tab-${name}`, href: `#/${name}`, 'aria-controls': `view-${name}` }
      return el('a', { ...attributes, 'aria-keyshortcuts': String(place + 1) }, title)
    })
    list.replaceChildren(...this.#tabs)
    for (const { name, element } of views) {
      Object.assign(element, { id: `view-${name}`, hidden: true, role: 'tabpanel' })
      element.setAttribute('aria-labelledby', `tab-${name}`)
      main.append(element)
    }
    list.addEventListener('keydown', event => this.#walk(event))
  }

  get current() {
    return this.#current
  }

  /** @param {number} place from 0 */
  go(place) {
    const view = this.#views[place]
    if (view === undefined) return
    location.hash = addressOf(view)
    this.#tabs[place]?.focus()
  }

  /** Shows what the address says. */
  read() {
    const [name, query = ''] = location.hash.replace(/^#\//, '').split(/\?(.*)/s)
    const view = this.#views.find(each => each.name === name) ?? this.#views[0]
    if (view !== this.#current || view.element.hidden) {
      this.#current.hide()
      this.#current = view
      document.title = `${view.title} · Tidegate inspector`
      for (const [place, { element }] of this.#views.entries()) {
        const isCurrent = element === view.element
        element.hidden = !isCurrent
        this.#tabs[place]?.setAttribute('aria-selected', String(isCurrent))
        this.#tabs[place]?.setAttribute('tabindex', isCurrent ? '0' : '-1')
      }
    }
    view.show(new URLSearchParams(query))
  }

  /** @param {KeyboardEvent} event */
  #walk(event) {
    const at = this.#tabs.indexOf(/** @type {HTMLAnchorElement} */ (event.target))
    const last = this.#tabs.length - 1
    const to = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1, Home: 0, End: last }[
      event.key
    ]
    if (at < 0 || to === undefined) return
    event.preventDefault()
    this.go(to)
  }
}
