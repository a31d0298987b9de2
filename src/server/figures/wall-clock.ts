// Milliseconds since 1970 with fractions, to compare with Postgres's clock and to measure between two moments.

/** Past it the wall clock was set, or the machine slept: the steady clock is laid on it anew. */
const driftMs = 5

let originMs = performance.timeOrigin

/** 80 ns. */
export function wallNow(): number {
  const steadyMs = performance.now()
  const nowMs = originMs + steadyMs
  const wallMs = Date.now()
  if (Math.abs(wallMs - nowMs) < driftMs) return nowMs
  originMs = wallMs - steadyMs
  return wallMs
}
