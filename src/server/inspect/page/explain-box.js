// Why somebody sees a row, or does not: takes a key, shows the answer in sentences.
import { el } from './dom.js'
import { explainSentences } from './explain-sentences.js'

/** @typedef {{ readonly table: string, readonly role: string, readonly claims: string }} Reader */

export class ExplainBox {
  #api
  #reader
  #fields = el('div', { class: 'fields' })
  #button = el('button', { class: 'primary' }, 'Explain')
  #answer = el('div', { class: 'answer', 'aria-live': 'polite' })
  /** @type {readonly string[]} */
  #columns = []
  /** @type {AbortController | null} */
  #asking = null
  element

  /** @param {() => import('./api.js').Api} api @param {() => Reader | null} reader null: what was filled in does not do */
  constructor(api, reader) {
    this.#api = api
    this.#reader = reader
    const form = el('form', {}, this.#fields, this.#button)
    form.addEventListener('submit', event => {
      event.preventDefault()
      void this.#ask()
    })
    const lead = el(
      'p',
      { class: 'soft' },
      'Is a row missing, or there that should not be? Type its key, or choose a row.',
    )
    this.element = el(
      'aside',
      { class: 'card explain', 'aria-label': 'Explain a row' },
      el('h3', {}, 'Explain a row'),
      lead,
      form,
      this.#answer,
    )
    this.setColumns([])
  }

  /** @param {readonly string[]} columns of the primary key; none: not known yet */
  setColumns(columns) {
    if (columns.length > 0 && columns.join('\n') === this.#columns.join('\n')) return
    this.#columns = columns
    this.#fields.replaceChildren(
      ...(columns.length === 0 ? ['key'] : columns).map((column, place) => {
        const id = `key-${place}`
        const hint = columns.length === 0 ? { placeholder: 'id=42' } : {}
        const field = el('input', { id, autocomplete: 'off', spellcheck: 'false', required: true, ...hint })
        return el('div', {}, el('label', { for: id }, column), field)
      }),
    )
  }

  /** @param {Readonly<Record<string, unknown>>} key of the row that is asked for */
  explain(key) {
    for (const [place, field] of this.#inputs.entries()) {
      const value = key[this.#columns[place] ?? '']
      field.value = typeof value === 'string' ? value : JSON.stringify(value ?? '')
    }
    void this.#ask()
  }

  clear() {
    this.#asking?.abort()
    this.#answer.replaceChildren()
  }

  get #inputs() {
    return [...this.#fields.querySelectorAll('input')]
  }

  async #ask() {
    const reader = this.#reader()
    if (reader === null) return
    this.clear()
    const asking = new AbortController()
    this.#asking = asking
    const keys = this.#inputs.map(({ value }, place) =>
      this.#columns.length === 0 ? value : `${this.#columns[place]}=${value}`,
    )
    const claims = reader.claims === '' ? [] : [/** @type {const} */ (['claims', reader.claims])]
    this.#button.disabled = true
    try {
      const parameters = [['table', reader.table], ['role', reader.role], ...claims, ...keys.map(key => ['key', key])]
      const answer = await this.#api().get('v1/explain', /** @type {[string, string][]} */ (parameters), asking.signal)
      this.#show(answer)
    } catch (error) {
      if (!asking.signal.aborted)
        this.#answer.replaceChildren(
          el('p', { class: 'problem' }, error instanceof Error ? error.message : String(error)),
        )
    } finally {
      this.#button.disabled = false
    }
  }

  /** @param {import('../../explain/explanation.ts').Explanation} explanation */
  #show(explanation) {
    const { tone, verdict, reasons, problems } = explainSentences(explanation)
    this.#answer.replaceChildren(
      el('p', { class: 'verdict', 'data-tone': tone }, verdict),
      ...reasons.map(text => el('p', {}, text)),
      ...problems.flatMap(({ text, run }) => [
        el('p', { class: 'problem' }, text),
        ...(run === null ? [] : [el('pre', {}, run)]),
      ]),
    )
  }

  /** For whoever looks at what left. @param {readonly { readonly key: Readonly<Record<string, unknown>> }[]} left the newest first @param {Element} list */
  listLeft(left, list) {
    list.replaceChildren(
      ...left.map(({ key }) => {
        const name = Object.values(key).map(String).join(', ')
        const button = el('button', { type: 'button', class: 'quiet' }, 'Why?')
        button.setAttribute('aria-label', `Why did ${name} go?`)
        button.addEventListener('click', () => this.explain(key))
        return el('li', {}, el('span', { class: 'code' }, name), button)
      }),
    )
  }
}
