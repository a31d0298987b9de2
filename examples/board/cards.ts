// Where cards are, and where they go.

export interface Card {
  id: number
  board_id: number
  column_id: number
  title: string
  position: number
}

export interface Database {
  boards: { id: number; name: string }
  columns: { id: number; board_id: number; title: string; position: number }
  cards: Card
  members: { board_id: number; user_id: string; name: string }
}

export type Place = Pick<Card, 'column_id' | 'position'>

/** The rows as the database orders them, with those in the places where they were just put. A row that nobody moves stays the same
 *  object. */
export function shownCards(rows: readonly Card[], moving: ReadonlyMap<number, Place>): readonly Card[] {
  if (moving.size === 0) return rows
  return rows
    .map(card => (moving.has(card.id) ? { ...card, ...moving.get(card.id) } : card))
    .sort((a, b) => a.position - b.position || a.id - b.id)
}

/** A position in a column, before another card or at the end. Somewhere between the neighbours and not in the middle, so that two people
 *  who drop cards into the same gap do not choose the same.
 *  @param cards the column's, in order
 *  @param moved the card that goes there, if it is one of them */
export function between(cards: readonly Card[], moved: Card | null, before: Card | null): number {
  const others = cards.filter(card => card.id !== moved?.id)
  const at = before === null ? -1 : cards.filter(card => card.id !== moved?.id || card === before).indexOf(before)
  const index = at < 0 ? others.length : at
  const previous = others[index - 1]?.position
  const next = others[index]?.position
  const share = 0.25 + Math.random() / 2
  if (previous === undefined) return next === undefined ? 1 : next - 2 * share
  return next === undefined ? previous + 2 * share : previous + (next - previous) * share
}

/** Where an arrow key takes a card; null: nowhere.
 *  @param beside the column so many to the right */
export function placeBeside(
  cards: readonly Card[],
  card: Card,
  key: string,
  beside: (step: number) => number | undefined,
): Place | null {
  const own = cards.filter(({ column_id }) => column_id === card.column_id)
  const at = own.indexOf(card)
  if (key === 'ArrowUp') {
    return at <= 0 ? null : { column_id: card.column_id, position: between(own, card, own[at - 1]!) }
  }
  if (key === 'ArrowDown') {
    if (at < 0 || at === own.length - 1) return null
    return { column_id: card.column_id, position: between(own, card, own[at + 2] ?? null) }
  }
  const column = beside(key === 'ArrowLeft' ? -1 : 1)
  if (column === undefined) return null
  const theirs = cards.filter(({ column_id }) => column_id === column)
  // As high up there as it was here.
  return { column_id: column, position: between(theirs, null, theirs[at] ?? null) }
}
