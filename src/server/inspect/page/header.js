// Which node this is, how it stands, and whether we still hear of it.
import { byId, el, setAttribute, setText } from './dom.js'
import { count, duration } from './format.js'

/** @typedef {import('../wire.ts').Overview} Overview */

/** @type {readonly { title: string, text: (overview: Overview) => string, tone?: (overview: Overview) => string | null, kind?: string }[]} */
const facts = [
  { title: 'Node', text: ({ node }) => node, kind: 'code wide' },
  { title: 'Part', text: ({ leads }) => (leads ? 'leader' : 'follower'), tone: ({ leads }) => (leads ? 'good' : null) },
  { title: 'Lag', text: ({ lagMs }) => duration(lagMs), tone: ({ lagMs }) => (lagMs > 2000 ? 'bad' : null) },
  { title: 'Connections', text: ({ connections }) => count(connections) },
  { title: 'Release', text: ({ release }) => release, kind: 'wide' },
]

export class Header {
  #link = byId('link', HTMLElement)
  #linkText = byId('link-text', HTMLElement)
  #banner = byId('banner', HTMLElement)
  #bannerText = byId('banner-text', HTMLElement)
  #again = byId('banner-again', HTMLElement)
  #isStale = false
  /** @type {import('./follow.js').Link} */
  #state = { state: 'connecting' }
  #facts = facts.map(({ title, text, tone, kind = '' }) => {
    const value = el('dd', {}, '–')
    return { text, tone, value, element: el('div', { class: kind }, el('dt', {}, title), value) }
  })

  constructor() {
    byId('facts', HTMLElement).append(...this.#facts.map(({ element }) => element))
    // The time until the next attempt.
    setInterval(() => this.#render(), 1000)
  }

  /** @param {Overview} overview */
  show(overview) {
    for (const { text, tone, value } of this.#facts) {
      setText(value, text(overview))
      if (tone !== undefined) setAttribute(value, 'data-tone', tone(overview))
    }
    this.#isStale = overview.stale
    this.#render()
  }

  /** @param {import('./follow.js').Link} link */
  tell(link) {
    this.#state = link
    this.#render()
  }

  #render() {
    const link = this.#state
    setAttribute(this.#link, 'data-state', link.state === 'live' && this.#isStale ? 'stale' : link.state)
    setAttribute(byId('app', HTMLElement), 'data-old', link.state === 'lost' || link.state === 'refused' ? '' : null)
    setText(this.#linkText, this.#isStale && link.state === 'live' ? 'stale' : words[link.state])
    const problem = this.#problemOf(link)
    this.#banner.hidden = problem === null
    setText(this.#bannerText, problem ?? '')
    // Seconds that are counted down are for the eye alone: they would be read aloud one by one.
    const seconds = link.state === 'lost' ? Math.max(0, Math.ceil((link.againAt - Date.now()) / 1000)) : null
    setText(this.#again, seconds === null ? '' : seconds === 0 ? 'Trying again.' : `Trying again in ${seconds} s.`)
  }

  /** @param {import('./follow.js').Link} link @returns {string | null} */
  #problemOf(link) {
    if (link.state === 'refused') return `${link.reason} Reload the page to try again.`
    if (link.state === 'lost') return `${link.reason} What is shown is from before.`
    return link.state === 'live' && this.#isStale
      ? 'The stream stands still: nothing new has come from Postgres for a while. Clients are told so too.'
      : null
  }
}

const words = { connecting: 'connecting', live: 'live', lost: 'connection lost', refused: 'refused' }
