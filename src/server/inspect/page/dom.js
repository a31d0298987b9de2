// Making elements. Whatever comes from a node goes in as text, never as markup: topics, filters and tables are named by strangers.

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string | boolean>} [attributes] true: without a value; false: left out
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes))
    if (value !== false) made.setAttribute(name, value === true ? '' : value)
  made.append(...children)
  return made
}

/**
 * @param {'svg' | 'path'} tag
 * @param {Record<string, string>} attributes
 */
export function svg(tag, attributes) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  return made
}

/** Touches the page only if something changed. @param {Element} element @param {string} text */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text
}

/** @param {Element} element @param {string} name @param {string | null} value null: takes it away */
export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name)
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value)
}

/**
 * An element of index.html.
 * @template {HTMLElement} Kind
 * @param {string} id
 * @param {new () => Kind} kind
 * @returns {Kind}
 */
export function byId(id, kind) {
  const found = document.getElementById(id)
  if (found instanceof kind) return found
  throw new Error(`index.html has no ${kind.name} ${id}`)
}

/** Does it soon, and at most so often. @param {() => void} act @param {number} everyMs */
export function throttled(act, everyMs) {
  let lastAt = Number.NEGATIVE_INFINITY
  let isDue = false
  const run = () => {
    isDue = false
    lastAt = performance.now()
    act()
  }
  return () => {
    if (isDue) return
    isDue = true
    setTimeout(run, Math.max(0, lastAt + everyMs - performance.now()))
  }
}
