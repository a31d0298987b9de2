// Preloaded into a node's process (node --import): the wall clock shows what a file says, jumping back and forth, as a machine's
// does whose time is set. Timers and performance.now() go on as they do on such a machine.
import { readFileSync } from 'node:fs'

const file = process.env.TORTURE_CLOCK_FILE
if (file !== undefined) {
  const RealDate = Date
  const realNow = Date.now
  let offsetMs = 0
  const look = (): void => {
    try {
      offsetMs = Number(readFileSync(file, 'utf8'))
    } catch {
      // Not written yet: the clock is right.
    }
  }
  look()
  setInterval(look, 50).unref()
  const now = (): number => realNow() + offsetMs
  globalThis.Date = new Proxy(RealDate, {
    construct: (target, values, newTarget) =>
      Reflect.construct(target, values.length === 0 ? [now()] : values, newTarget),
    apply: () => new RealDate(now()).toString(),
    get: (target, key, receiver) => (key === 'now' ? now : Reflect.get(target, key, receiver)),
  })
}
