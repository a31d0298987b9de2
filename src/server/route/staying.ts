// Which rows of an ordered list can stay where they are while the others are put around them. Pure.

/** Those that are fixed, and of the rest each that still stands between its neighbours. What stays is in the order in which it
 *  was held, whatever `isFixed` says.
 *  @param places where each row, in the new order, was held; -1 for those that were not
 *  @param isFixed whether the row at this place of the new order has no reason to move */
export function stayingAmong(places: readonly number[], isFixed: (at: number) => boolean): readonly boolean[] {
  const stays = places.map(() => false)
  let isRising = true
  let greatest = -1
  for (let at = 0; at < places.length; at++) {
    const place = places[at]!
    if (place < 0) continue
    if (place < greatest) isRising = false
    else greatest = place
    stays[at] = true
  }
  if (isRising) return stays
  /** Of the next fixed row behind each. */
  const next = new Array<number>(places.length)
  let following = Number.POSITIVE_INFINITY
  for (let at = places.length - 1; at >= 0; at--) {
    next[at] = following
    if (places[at]! >= 0 && isFixed(at)) following = places[at]!
  }
  let last = -1
  for (let at = 0; at < places.length; at++) {
    const place = places[at]!
    if (place < 0) continue
    stays[at] = place > last && (isFixed(at) || place < next[at]!)
    if (stays[at]) last = place
  }
  return stays
}
