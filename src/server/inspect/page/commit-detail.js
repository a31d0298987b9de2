// One commit's way: when each stage began, how long it took and what it did.

import { tookMsOf } from './commit-table.js'
import { el } from './dom.js'
import { bytes, clock, count, duration, plural } from './format.js'
import { stages } from './stages.js'

/** @typedef {import('../../figures/commit-trace.ts').CommitTrace} CommitTrace */

/** @param {CommitTrace} trace @param {() => void} close */
export function commitDetail(trace, close) {
  const closing = el('button', { type: 'button', class: 'quiet', title: 'Close (Escape)' }, 'Close')
  closing.addEventListener('click', close)
  const facts = /** @type {const} */ ([
    ['Transaction', String(trace.xid)],
    ['Committed', clock(trace.committedAtMs)],
    ['Tables', trace.tables.join(', ') || 'none'],
    ['Size', bytes(trace.bytes)],
    ['Changes', count(trace.changes)],
    ['Audiences concerned', count(trace.audiences)],
    ['Deliveries', count(trace.deliveries)],
    ['From the commit to the last socket', duration(endToEndMsOf(trace))],
  ])
  return el(
    'div',
    {},
    el('div', { class: 'head' }, el('h3', {}, 'Commit ', el('code', {}, trace.lsn)), closing),
    el('ol', { class: 'spans', 'aria-label': 'Stages of this commit' }, ...spanLines(trace)),
    el('dl', { class: 'pairs' }, ...facts.flatMap(([name, value]) => [el('dt', {}, name), el('dd', {}, value)])),
  )
}

/** By two clocks: Postgres's and this node's. @param {CommitTrace} trace */
function endToEndMsOf({ committedAtMs, spans }) {
  const last = spans.at(-1)
  return last === undefined ? null : Math.max(0, last.startedAtMs + last.durationMs - committedAtMs)
}

/** @param {CommitTrace} trace */
function spanLines(trace) {
  const startMs = Math.min(...trace.spans.map(({ startedAtMs }) => startedAtMs))
  const wholeMs = Math.max(tookMsOf(trace) ?? 0, 0.001)
  return stages.map(({ stage, counts }) => {
    const span = trace.spans.find(each => each.stage === stage)
    const line = el('li', { 'data-stage': stage }, el('span', { class: 'name' }, stage))
    if (span === undefined) {
      line.append(el('span', { class: 'soft none' }, 'had nothing to do'))
      return line
    }
    const bar = el('i')
    bar.style.left = `${(100 * (span.startedAtMs - startMs)) / wholeMs}%`
    bar.style.width = `${(100 * span.durationMs) / wholeMs}%`
    const did = counts === null ? bytes(span.count) : plural(span.count, ...counts)
    const track = el('span', { class: 'track', 'aria-hidden': 'true' }, bar)
    line.append(track, el('span', { class: 'time' }, duration(span.durationMs)), el('span', { class: 'did soft' }, did))
    return line
  })
}
