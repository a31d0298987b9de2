// A line of the last minute, as high as its highest value.
import { svg } from './dom.js'

const points = 60

export class Sparkline {
  /** @type {number[]} */
  #values = []
  #line = svg('path', { class: 'line' })
  #area = svg('path', { class: 'area' })
  element

  constructor() {
    this.element = svg('svg', {
      class: 'spark',
      viewBox: `0 0 ${points - 1} 20`,
      preserveAspectRatio: 'none',
      'aria-hidden': 'true',
    })
    this.element.append(this.#area, this.#line)
  }

  /** @param {number} value one a second; the oldest goes */
  add(value) {
    this.#values.push(value)
    if (this.#values.length > points) this.#values.shift()
    const most = Math.max(1, ...this.#values)
    const first = points - this.#values.length
    const path = this.#values.map((each, place) => `${first + place} ${(19 - (18 * each) / most).toFixed(1)}`).join('L')
    this.#line.setAttribute('d', `M${path}`)
    this.#area.setAttribute('d', `M${path}L${points - 1} 20L${first} 20Z`)
  }
}
