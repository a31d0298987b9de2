// The path as an instrument: a gauge for each stage, and a lane on which commits pass.
import { el, setAttribute, setText } from './dom.js'
import { duration, rate } from './format.js'
import { Sparkline } from './sparkline.js'
import { stages } from './stages.js'

/** Dots under way at once; more commits pass without one. */
const maxDots = 24
const travelMs = 2600

export class StageStrip {
  #lane = el('div', { class: 'lane', 'aria-hidden': 'true' })
  #dots = 0
  #gauges = stages.map(({ stage, does }) => {
    const perSecond = el('span', { class: 'figure' }, '–')
    const p50 = el('dd', {}, '–')
    const p99 = el('dd', {}, '–')
    const spark = new Sparkline()
    const element = el('li', { class: 'stage card', 'data-stage': stage })
    const times = el('dl', { class: 'times' }, el('dt', {}, 'p50'), p50, el('dt', {}, 'p99'), p99)
    const head = el('h3', {}, stage, el('span', { class: 'soft' }, does))
    element.append(
      head,
      el('p', { class: 'rate' }, perSecond, el('span', { class: 'soft' }, ' /s')),
      times,
      spark.element,
    )
    return { stage, element, perSecond, p50, p99, spark }
  })

  element = el(
    'div',
    { class: 'path' },
    this.#lane,
    el('ol', { class: 'stages', 'aria-label': 'Stages of the path' }, ...this.#gauges.map(({ element }) => element)),
  )

  /** @param {import('../wire.ts').Overview} overview */
  show({ stages: figures }) {
    for (const gauge of this.#gauges) {
      const figure = figures.find(({ stage }) => stage === gauge.stage)
      setText(gauge.perSecond, figure === undefined ? '–' : rate(figure.perSecond))
      setText(gauge.p50, duration(figure?.p50Ms ?? null))
      setText(gauge.p99, duration(figure?.p99Ms ?? null))
      setAttribute(gauge.element, 'data-idle', figure === undefined || figure.perSecond === 0 ? '' : null)
      gauge.spark.add(figure?.perSecond ?? 0)
    }
  }

  /** Sends dots along the lane. @param {number} commits */
  pass(commits) {
    if (document.hidden || matchMedia('(prefers-reduced-motion: reduce)').matches) return
    const width = this.#lane.clientWidth
    const dots = Math.min(commits, 5, maxDots - this.#dots)
    for (let place = 0; place < dots && width > 0; place++) {
      const dot = el('i')
      this.#lane.append(dot)
      this.#dots += 1
      const frames = [
        { transform: 'translateX(0)', opacity: 0 },
        { opacity: 1, offset: 0.06 },
        { opacity: 1, offset: 0.94 },
        { transform: `translateX(${width}px)`, opacity: 0 },
      ]
      const moves = dot.animate(frames, { duration: travelMs, delay: (250 * place) / dots, fill: 'backwards' })
      moves.finished.finally(() => {
        dot.remove()
        this.#dots -= 1
      })
    }
  }
}
