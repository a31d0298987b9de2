// Where one subscription stands in the stream: the position of the last state the client holds whole, and the tag that
// makes it worth something to the server.
import { comparePositions, type Position, parsePosition } from '../protocol/position.ts'

export class Stand {
  #tag: string | null = null
  #text: string | null = null
  #position: Position | null = null

  /** What to send as `since`; null: begin fresh. */
  get since(): string | null {
    return this.#text === null || this.#tag === null ? null : `${this.#text}.${this.#tag}`
  }

  get tag(): string | null {
    return this.#tag
  }

  setTag(tag: string): void {
    this.#tag = tag
  }

  /** True when the position was passed before: what carries it has been applied already. */
  hasPassed(text: string): boolean {
    const position = parsePosition(text)
    if (position === null || this.#position === null || position.epoch !== this.#position.epoch) return false
    return comparePositions(position, this.#position) <= 0
  }

  /** Moves forward; a position passed before changes nothing, because going back would repeat what was applied. */
  moveTo(text: string): void {
    if (this.hasPassed(text)) return
    this.#text = text
    this.#position = parsePosition(text)
  }

  /** From a heartbeat: position and tag in one, as `since` takes it. */
  moveToSince(text: string): void {
    const dot = text.lastIndexOf('.')
    if (dot === -1 || this.hasPassed(text.slice(0, dot))) return
    this.setTag(text.slice(dot + 1))
    this.moveTo(text.slice(0, dot))
  }

  forget(): void {
    this.#text = null
    this.#position = null
  }
}
