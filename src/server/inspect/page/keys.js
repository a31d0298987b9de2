// What keys do wherever one stands, and the list of them.
import { byId, el } from './dom.js'

/** @typedef {{ readonly keys: readonly string[], readonly does: string, readonly act: (key: string) => void }} Shortcut */

const names = /** @type {Readonly<Record<string, string>>} */ ({ ' ': 'Space', 1: '1 … 5' })

/** Those that rows, tabs and the browser have anyway. */
const others = /** @type {const} */ ([
  ['↑ ↓', 'walk the rows of a table, once one of them has the focus'],
  ['Enter', 'open a row, or close it'],
  ['← →', 'the tab beside, once a tab has the focus'],
])

/** @param {readonly Shortcut[]} shortcuts */
export function listenToKeys(shortcuts) {
  const dialog = byId('help', HTMLDialogElement)
  const lines = [...shortcuts.map(({ keys, does }) => [names[keys[0] ?? ''] ?? keys.join(' '), does]), ...others]
  byId('help-keys', HTMLElement).replaceChildren(
    ...lines.flatMap(([key = '', does = '']) => [el('dt', {}, el('kbd', {}, key)), el('dd', {}, does)]),
  )
  document.addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || dialog.open) return
    if (event.key !== 'Escape' && (isTyped(event.target) || (event.key === ' ' && isPressed(event.target)))) return
    const shortcut = shortcuts.find(({ keys }) => keys.includes(event.key))
    if (shortcut === undefined) return
    event.preventDefault()
    shortcut.act(event.key)
  })
}

/** @param {EventTarget | null} target */
const isTyped = target => target instanceof Element && target.closest('input, textarea, select') !== null

/** The space bar presses these. @param {EventTarget | null} target */
const isPressed = target => target instanceof Element && target.closest('button, summary') !== null
