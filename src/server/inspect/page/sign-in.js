// Asks for the operator's token, and keeps it for this tab alone.
import { byId, setText } from './dom.js'

const place = 'tidegate.inspector.token'

export class SignIn {
  #form = byId('sign-in', HTMLFormElement)
  #field = byId('token', HTMLInputElement)
  #problem = byId('sign-in-problem', HTMLElement)
  #enter

  /** @param {(token: string) => void} enter tries a token: then `done` or `ask` is called */
  constructor(enter) {
    this.#enter = enter
    this.#form.addEventListener('submit', event => {
      event.preventDefault()
      const token = this.#field.value.trim()
      if (token !== '') this.#try(token)
    })
  }

  /** With the token of before a reload, if there is one. */
  begin() {
    const token = sessionStorage.getItem(place)
    if (token === null) this.ask(null)
    else this.#enter(token)
  }

  /** @param {string | null} problem of the token that was tried */
  ask(problem) {
    sessionStorage.removeItem(place)
    this.#form.hidden = false
    this.#setBusy(false)
    this.#field.value = ''
    this.#problem.hidden = problem === null
    setText(this.#problem, problem === null ? '' : `Not signed in: ${problem}.`.replace('..', '.'))
    this.#field.focus()
  }

  /** @param {string} token was taken */
  done(token) {
    sessionStorage.setItem(place, token)
    this.#form.hidden = true
    this.#field.value = ''
    this.#setBusy(false)
  }

  /** @param {string} token */
  #try(token) {
    this.#setBusy(true)
    this.#enter(token)
  }

  /** @param {boolean} isBusy */
  #setBusy(isBusy) {
    for (const button of this.#form.querySelectorAll('button')) button.disabled = isBusy
  }
}
