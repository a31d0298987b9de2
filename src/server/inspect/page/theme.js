// Light, dark, or as the system has it. Kept by the browser.
import { setText } from './dom.js'

const themes = /** @type {const} */ (['system', 'light', 'dark'])
const words = { system: 'Auto', light: 'Light', dark: 'Dark' }
const place = 'tidegate.inspector.theme'

/** @param {HTMLButtonElement} button */
export function createTheme(button) {
  let theme = themes.find(each => each === localStorage.getItem(place)) ?? 'system'
  const show = () => {
    if (theme === 'system') delete document.documentElement.dataset.theme
    else document.documentElement.dataset.theme = theme
    setText(button, words[theme])
    button.setAttribute('aria-label', `Colours: ${words[theme]}. Change`)
    button.title = 'Colours (t)'
  }
  const next = () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length] ?? 'system'
    localStorage.setItem(place, theme)
    show()
  }
  button.addEventListener('click', next)
  show()
  return { next }
}
