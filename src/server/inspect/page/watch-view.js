// A table as any user would see it: the same door, the same policies, the same rows at the same moment.
import { el, setText } from './dom.js'
import { ExplainBox } from './explain-box.js'
import { follow } from './follow.js'
import { addressOf } from './tabs.js'
import { WatchTable } from './watch-table.js'
import { WatchedRows } from './watched-rows.js'

/** Two heartbeats of 25 seconds, and some. */
const silentMs = 55_000
/** Rows that left, listed beside the table. */
const maxLeft = 5

const fields = /** @type {const} */ ([
  ['table', 'Table', 'public.messages'],
  ['role', 'Role', 'authenticated'],
  ['claims', 'Claims (JSON)', '{"sub": "..."}'],
  ['filter', 'Filter', 'room_id=eq.42'],
  ['order', 'Order', 'id.desc'],
  ['limit', 'Limit', ''],
])

export class WatchView {
  name = 'watch'
  title = 'Watch'
  #api
  #inputs = Object.fromEntries(
    fields.map(([name, , placeholder]) => {
      const attributes = { id: `watch-${name}`, name, placeholder, autocomplete: 'off', spellcheck: 'false' }
      if (name === 'claims') return [name, el('textarea', { ...attributes, rows: '1' })]
      if (name === 'limit') return [name, el('input', { ...attributes, inputmode: 'numeric', pattern: '[0-9]*' })]
      return [name, el('input', { ...attributes, required: name === 'table' || name === 'role' })]
    }),
  )
  #start = el('button', { class: 'primary' }, 'Watch')
  #stop = el('button', { type: 'button', hidden: true }, 'Stop')
  #said = el('p', { class: 'soft said', role: 'status' })
  #problem = el('p', { class: 'problem', role: 'alert', hidden: true })
  #table = new WatchTable(key => this.#explain.explain(key))
  #explain
  #leftTitle = el('h3', { hidden: true }, 'Left just now')
  #leftList = el('ul', { class: 'left' })
  /** @type {{ readonly key: Readonly<Record<string, unknown>> }[]} */
  #left = []
  /** @type {AbortController | null} */
  #watching = null
  /** What is watched, as its address says it. */
  #address = ''
  element

  /** @param {() => import('./api.js').Api} api */
  constructor(api) {
    this.#api = api
    this.#explain = new ExplainBox(api, () => this.#reader())
    const inputs = fields.map(([name, title]) =>
      el('div', { class: `of-${name}` }, el('label', { for: `watch-${name}` }, title), this.#input(name)),
    )
    const form = el(
      'form',
      { class: 'card watch-form' },
      ...inputs,
      el('div', { class: 'go' }, this.#start, this.#stop),
    )
    form.addEventListener('submit', event => {
      event.preventDefault()
      const values = Object.fromEntries(fields.map(([name]) => [name, this.#input(name).value.trim()]))
      const address = addressOf(this, values)
      if (location.hash === address) this.#watch(address)
      else location.hash = address
    })
    this.#stop.addEventListener('click', () => {
      this.#end()
      this.#start.focus()
    })
    this.#input('role').value = 'authenticated'
    const lead = 'What one user sees of a table, with the policies and memberships of this moment.'
    this.#explain.element.append(this.#leftTitle, this.#leftList)
    this.element = el(
      'section',
      { class: 'watch' },
      el('div', { class: 'head' }, el('h2', {}, 'Watch'), el('p', { class: 'soft lead' }, lead)),
      form,
      this.#problem,
      el(
        'div',
        { class: 'beside' },
        el('div', { class: 'watched-side' }, this.#said, this.#table.element),
        this.#explain.element,
      ),
    )
  }

  /** @param {URLSearchParams} parameters */
  show(parameters) {
    if (!parameters.has('table')) return
    const address = location.hash
    if (this.#watching !== null && address === this.#address) return
    for (const [name] of fields) this.#input(name).value = parameters.get(name) ?? ''
    this.#watch(address)
  }

  /** Nobody looks: the node need not tell. Whoever comes back to the view begins anew. */
  hide() {
    if (this.#watching !== null) this.#end()
  }

  find() {
    this.#input('table').focus()
  }

  /** @param {(typeof fields)[number][0]} name */
  #input(name) {
    return /** @type {HTMLInputElement | HTMLTextAreaElement} */ (this.#inputs[name])
  }

  /** @returns {import('./explain-box.js').Reader | null} */
  #reader() {
    const [table, role, claims] = [
      this.#input('table').value.trim(),
      this.#input('role').value.trim(),
      this.#input('claims').value.trim(),
    ]
    const problem = table === '' || role === '' ? 'Name a table and a role.' : claimsProblemOf(claims)
    this.#tell(problem)
    return problem === null ? { table, role, claims } : null
  }

  /** @param {string} address */
  #watch(address) {
    this.#end()
    this.#explain.clear()
    this.#left = []
    this.#listLeft()
    const reader = this.#reader()
    if (reader === null) return
    this.#address = address
    const watching = new AbortController()
    this.#watching = watching
    this.#stop.hidden = false
    const more = /** @type {const} */ (['filter', 'order', 'limit']).map(
      name => /** @type {const} */ ([name, this.#input(name).value.trim()]),
    )
    const given = [['table', reader.table], ['role', reader.role], ['claims', reader.claims], ...more].filter(
      ([, value]) => value !== '',
    )
    const rows = new WatchedRows()
    const following = {
      api: this.#api(),
      path: 'v1/inspect/watch',
      parameters: /** @type {[string, string][]} */ (given),
      silentMs,
      take: (/** @type {import('./events.js').ServerEvent} */ event) => this.#take(rows, event),
      tell: (/** @type {import('./follow.js').Link} */ link) => this.#tellLink(link),
    }
    void follow(following, watching.signal)
  }

  #end() {
    this.#watching?.abort()
    this.#watching = null
    this.#stop.hidden = true
    this.#table.clear()
    setText(this.#said, '')
  }

  /** @param {WatchedRows} rows @param {import('./events.js').ServerEvent} event */
  #take(rows, event) {
    const step = rows.take(event)
    if (event.event === 'subscribed') this.#explain.setColumns(rows.key)
    if (event.event === 'heartbeat') setText(this.#said, event.data.stale ? 'stale: the stream stands still' : 'live')
    if (event.event === 'snapshot' && rows.isWhole) setText(this.#said, 'live')
    if (event.event === 'resync') setText(this.#said, `begins anew: ${event.data.reason}`)
    if (rows.isFull) {
      this.#end()
      this.#tell(`Such a user sees more than ${WatchedRows.maxRows} rows. Name a filter, or an order and a limit.`)
      return
    }
    if (step.left.length > 0) {
      this.#left = [...step.left.toReversed(), ...this.#left].slice(0, maxLeft)
      this.#listLeft()
    }
    this.#table.take(rows, step)
  }

  #listLeft() {
    this.#leftTitle.hidden = this.#left.length === 0
    this.#explain.listLeft(this.#left, this.#leftList)
  }

  /** @param {import('./follow.js').Link} link */
  #tellLink(link) {
    if (link.state === 'refused') {
      this.#end()
      this.#tell(`${link.refusal.code}: ${link.reason}`)
    } else if (link.state === 'lost') setText(this.#said, `${link.reason} Coming back; these rows are from before.`)
    else if (link.state === 'connecting') setText(this.#said, 'asking')
  }

  /** @param {string | null} problem */
  #tell(problem) {
    this.#problem.hidden = problem === null
    setText(this.#problem, problem ?? '')
  }
}

/** @param {string} claims @returns {string | null} */
function claimsProblemOf(claims) {
  if (claims === '') return null
  try {
    const value = JSON.parse(claims)
    return value !== null && typeof value === 'object' && !Array.isArray(value)
      ? null
      : 'The claims are no JSON object.'
  } catch {
    return 'The claims are not JSON. Write an object: {"sub": "..."}'
  }
}
