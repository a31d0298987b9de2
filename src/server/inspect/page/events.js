// Server-sent events out of chunks of text, however they were cut. Pure.

/** @typedef {{ readonly event: string, readonly data: any }} ServerEvent */

/** What a stream may send before an event is whole. Past it the stream is broken off: it is no stream of ours. */
const maxEventLength = 32 * 1024 * 1024

export class EventParser {
  #rest = ''

  /**
   * @param {string} text
   * @returns {ServerEvent[]} those that are whole now
   * @throws {Error} on what is no event of Tidegate
   */
  feed(text) {
    this.#rest += text
    /** @type {ServerEvent[]} */
    const events = []
    let start = 0
    for (let end = this.#rest.indexOf('\n\n'); end >= 0; end = this.#rest.indexOf('\n\n', start)) {
      const event = eventOf(this.#rest.slice(start, end))
      if (event !== null) events.push(event)
      start = end + 2
    }
    this.#rest = this.#rest.slice(start)
    if (this.#rest.length > maxEventLength) throw new Error('an event is larger than this page takes')
    return events
  }
}

/** @param {string} block @returns {ServerEvent | null} null: a comment, or an id alone */
function eventOf(block) {
  let event = 'message'
  let data = ''
  for (const line of block.split('\n')) {
    if (line.startsWith('event:')) event = line.slice(6).trim()
    else if (line.startsWith('data:')) data += line.slice(5).trim()
  }
  return data === '' ? null : { event, data: JSON.parse(data) }
}
