// The path of a commit as it happens: rates and times of each stage, and the newest commits one by one.
import { commitDetail } from './commit-detail.js'
import { CommitTable } from './commit-table.js'
import { el, setAttribute, setText } from './dom.js'
import { bytes, count, plural, rate } from './format.js'
import { Sparkline } from './sparkline.js'
import { StageStrip } from './stage-strip.js'

/** @typedef {import('../wire.ts').Overview} Overview */

/** @type {readonly { title: string, unit: string, value: (overview: Overview) => string, line: (overview: Overview) => number }[]} */
const figures = [
  { title: 'Commits', unit: '/s', value: each => rate(each.commitsPerSecond), line: each => each.commitsPerSecond },
  { title: 'Changes', unit: '/s', value: each => rate(each.changesPerSecond), line: each => each.changesPerSecond },
  {
    title: 'Deliveries',
    unit: '/s',
    value: each => rate(each.deliveriesPerSecond),
    line: each => each.deliveriesPerSecond,
  },
  { title: 'Sent', unit: '/s', value: each => bytes(each.bytesPerSecond), line: each => each.bytesPerSecond },
  { title: 'Subscriptions', unit: '', value: each => count(each.subscriptions), line: each => each.subscriptions },
  { title: 'Audiences', unit: '', value: each => count(each.audiences), line: each => each.audiences },
  { title: 'Queued bytes', unit: '', value: each => bytes(each.queuedBytes), line: each => each.queuedBytes },
]

/** @implements {Pick<import('./tabs.js').View, 'show' | 'hide' | 'escape' | 'pause'>} */
export class StreamView {
  name = 'stream'
  title = 'Stream'
  #strip = new StageStrip()
  #table = new CommitTable(trace => this.#open(trace))
  #detail = el('aside', { class: 'card commit-detail', 'aria-label': 'Chosen commit', hidden: true })
  #pause = el('button', { type: 'button', 'aria-pressed': 'false', title: 'Pause (Space)' }, 'Pause')
  #missed = el('p', { class: 'soft', 'aria-live': 'off' })
  #isPaused = false
  /** Commits that came while the table stood. */
  #waiting = 0
  #figures = figures.map(({ title, unit, value, line }) => {
    const text = el('span', { class: 'figure' }, '–')
    const spark = new Sparkline()
    const element = el(
      'div',
      { class: 'fact card' },
      el('dt', {}, title),
      el('dd', {}, text, el('span', { class: 'soft' }, unit)),
    )
    element.append(spark.element)
    return { element, text, value, spark, line }
  })
  #wal = el('div', { class: 'fact card' })
  #refusals = el('div', { class: 'codes card', hidden: true })
  element

  constructor() {
    this.#pause.addEventListener('click', () => this.pause())
    this.element = el(
      'section',
      { class: 'stream' },
      el('h2', { class: 'unseen' }, 'Stream'),
      this.#strip.element,
      el('dl', { class: 'figures' }, ...this.#figures.map(({ element }) => element), this.#wal),
      this.#refusals,
      el('div', { class: 'head' }, el('h3', {}, 'Newest commits'), this.#missed, this.#pause),
      el('div', { class: 'beside' }, this.#table.element, this.#detail),
    )
  }

  show() {}
  hide() {}

  pause() {
    this.#isPaused = !this.#isPaused
    if (!this.#isPaused) this.#waiting = 0
    if (!this.#isPaused && this.#table.isStoodOn) this.#pause.focus()
    setText(this.#pause, this.#isPaused ? 'Go on' : 'Pause')
    this.#pause.setAttribute('aria-pressed', String(this.#isPaused))
    this.#tellMissed(0)
  }

  escape() {
    const wasOpen = !this.#detail.hidden
    this.#close()
    return wasOpen
  }

  /** @param {Overview} overview */
  takeOverview(overview) {
    this.#strip.show(overview)
    for (const { text, value, spark, line } of this.#figures) {
      setText(text, value(overview))
      spark.add(line(overview))
    }
    this.#showWal(overview)
    this.#showCodes(overview)
  }

  /** @param {import('../wire.ts').CommitsSeen} seen */
  takeCommits({ traces, skipped }) {
    const all = traces.length + skipped
    this.#strip.pass(all)
    if (this.#isPaused || this.#table.isStoodOn) {
      this.#waiting += all
      this.#tellMissed(0)
      return
    }
    this.#waiting = 0
    this.#tellMissed(all - this.#table.add(traces))
  }

  /** @param {number} left out of what was told last */
  #tellMissed(left) {
    const why = this.#isPaused ? 'paused' : 'standing still while a row has the focus'
    if (this.#isPaused || this.#waiting > 0) setText(this.#missed, `${why}: ${plural(this.#waiting, 'commit')} since`)
    else setText(this.#missed, left > 0 ? `${count(left)} more at this moment` : '')
  }

  /** @param {import('../../figures/commit-trace.ts').CommitTrace} trace */
  #open(trace) {
    this.#detail.replaceChildren(commitDetail(trace, () => this.#close()))
    this.#detail.hidden = false
  }

  #close() {
    // Else the focus would be nowhere.
    if (this.#detail.contains(document.activeElement)) this.#pause.focus()
    this.#detail.hidden = true
    this.#table.unselect()
  }

  /** @param {Overview} overview */
  #showWal({ retainedWalBytes, slotMaxBytes }) {
    const text = retainedWalBytes === null ? '–' : bytes(retainedWalBytes)
    const meter = el('meter', {
      min: '0',
      max: String(slotMaxBytes),
      low: String(slotMaxBytes * 0.5),
      high: String(slotMaxBytes * 0.8),
      optimum: '0',
      value: String(retainedWalBytes ?? 0),
      'aria-label': 'WAL held back, of its limit',
    })
    const title = el('dt', {}, `WAL held / ${bytes(slotMaxBytes)}`)
    const fresh = [title, el('dd', {}, el('span', { class: 'figure' }, text)), el('div', {}, meter)]
    if (this.#wal.textContent !== fresh.map(each => each.textContent).join('')) this.#wal.replaceChildren(...fresh)
    setAttribute(this.#wal, 'data-tone', (retainedWalBytes ?? 0) > slotMaxBytes * 0.8 ? 'bad' : null)
  }

  /** @param {Overview} overview */
  #showCodes({ refusals, resyncs }) {
    this.#refusals.hidden = refusals.length + resyncs.length === 0
    const listOf = (/** @type {string} */ title, /** @type {Overview['refusals']} */ codes) =>
      codes.length === 0
        ? []
        : [
            el('dt', {}, title),
            ...codes.map(({ code, count: times }) => el('dd', {}, el('code', {}, code), ` ${count(times)}`)),
          ]
    const fresh = el(
      'dl',
      {},
      ...listOf('Refused in the last minute', refusals),
      ...listOf('Begun anew in the last minute', resyncs),
    )
    if (!this.#refusals.firstElementChild?.isEqualNode(fresh)) this.#refusals.replaceChildren(fresh)
  }
}
