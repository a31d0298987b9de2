// Numbers as an instrument shows them: short, in a unit, always of about the same width. Pure.

const grouped = new Intl.NumberFormat('en')

/** @param {number} value @example count(1234) // '1,234' */
export function count(value) {
  if (value < 100_000) return grouped.format(value)
  return value < 10_000_000 ? `${grouped.format(Math.round(value / 1000))} k` : `${(value / 1e6).toFixed(0)} M`
}

/** @param {number} perSecond @example rate(3.42) // '3.4' */
export function rate(perSecond) {
  return perSecond === 0 || perSecond >= 10 ? count(Math.round(perSecond)) : perSecond.toFixed(1)
}

const byteUnits = ['B', 'kB', 'MB', 'GB', 'TB']

/** @param {number} value @example bytes(12_345) // '12 kB' */
export function bytes(value) {
  let place = 0
  let rest = value
  while (rest >= 1000 && place < byteUnits.length - 1) {
    rest /= 1000
    place += 1
  }
  return `${place > 0 && rest < 10 ? rest.toFixed(1) : Math.round(rest)} ${byteUnits[place]}`
}

/** @param {number | null} ms null: nothing was timed @example duration(0.42) // '420 µs' */
export function duration(ms) {
  if (ms === null) return '–'
  if (ms < 0.9995) return `${Math.round(ms * 1000)} µs`
  if (ms < 9.95) return `${ms.toFixed(1)} ms`
  if (ms < 999.5) return `${Math.round(ms)} ms`
  const seconds = ms / 1000
  return seconds < 9.95 ? `${seconds.toFixed(1)} s` : `${count(Math.round(seconds))} s`
}

/** @param {number} ms since 1970 @returns {string} by the clock of whoever looks: `21:04:05.678` */
export function clock(ms) {
  const date = new Date(ms)
  const two = (/** @type {number} */ value) => String(value).padStart(2, '0')
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':')
  return `${time}.${String(date.getMilliseconds()).padStart(3, '0')}`
}

/** @param {number} value @param {string} one @param {string} [many] @example plural(2, 'row') // '2 rows' */
export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`

/** How long a bar is for a time, so that 5 µs and 50 ms both show. @param {number} ms @returns {number} 0 to 1, by the logarithm */
export function barOf(ms) {
  const [least, most] = [0.002, 100]
  return Math.min(1, Math.max(0.06, Math.log(Math.max(ms, least) / least) / Math.log(most / least)))
}
