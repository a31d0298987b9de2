// Rows of a table that one walks with the arrow keys: the Tab key reaches one of them, as it reaches one button of a group.

/**
 * @param {HTMLElement} body whose children are the rows; those with `data-row` are walked
 * @param {(row: HTMLElement) => void} open on Enter, space or a click
 */
export function walkRows(body, open) {
  const rows = () => /** @type {HTMLElement[]} */ ([...body.querySelectorAll('[data-row]')])
  const rowOf = (/** @type {EventTarget | null} */ target) =>
    target instanceof Element ? /** @type {HTMLElement | null} */ (target.closest('[data-row]')) : null
  body.addEventListener('keydown', event => {
    const row = rowOf(event.target)
    if (row === null || row !== event.target || event.ctrlKey || event.metaKey || event.altKey) return
    const all = rows()
    const at = all.indexOf(row)
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key]
    if (event.key === 'Enter' || event.key === ' ') open(row)
    else if (to === undefined) return
    else focusRow(body, all[Math.min(all.length - 1, Math.max(0, to))])
    event.preventDefault()
    event.stopPropagation()
  })
  body.addEventListener('click', event => {
    const row = rowOf(event.target)
    // Whoever marks text to copy it opens nothing.
    if (row === null || getSelection()?.type === 'Range') return
    focusRow(body, row)
    open(row)
  })
}

/** @param {HTMLElement} body @param {HTMLElement | undefined} row */
function focusRow(body, row) {
  if (row === undefined) return
  for (const other of body.querySelectorAll('[data-row][tabindex="0"]')) other.setAttribute('tabindex', '-1')
  row.setAttribute('tabindex', '0')
  row.focus()
}

/** After rows came and went: exactly one is reached by Tab. @param {HTMLElement} body */
export function keepOneReachable(body) {
  if (body.querySelector('[data-row][tabindex="0"]') === null)
    body.querySelector('[data-row]')?.setAttribute('tabindex', '0')
}
