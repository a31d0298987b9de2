// Which topics a pattern means: `room:*`, where `*` stands for any text, also none. Everything else stands for itself.

/** Looks at each star once, from left to right: its time is bounded by the length of pattern times topic, whatever they are. */
export function matchesTopic(pattern: string, topic: string): boolean {
  const [head = '', ...rest] = pattern.split('*')
  const tail = rest.pop()
  if (tail === undefined) return topic === head
  if (topic.length < head.length + tail.length || !topic.startsWith(head) || !topic.endsWith(tail)) return false
  const end = topic.length - tail.length
  let at = head.length
  for (const part of rest) {
    // The first place will do: whatever a later one leaves for the parts behind it, this one leaves too.
    const found = topic.indexOf(part, at)
    if (found < 0 || found + part.length > end) return false
    at = found + part.length
  }
  return true
}
