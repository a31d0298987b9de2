import { expect, test } from 'vitest'
import { Locked, untilUnlocked } from '../../../src/server/postgres/locked.ts'
import { eventually } from '../../support/eventually.ts'

const lockedOut = (): Error => Object.assign(new Error('canceling statement due to lock timeout'), { code: '55P03' })

/** A table that somebody holds. */
class Table {
  isHeld = true
  tries = 0

  readonly read = async (): Promise<string> => {
    this.tries += 1
    if (this.isHeld) throw lockedOut()
    return 'rows'
  }
}

test('[P7] of a thousand who want what is locked one tries, and all have it when it is free', async () => {
  const locked = new Locked({ patienceMs: 10_000, queueLimit: 10_000 })
  const table = new Table()
  const first = locked.run('a', table.read)
  await eventually(() => expect(table.tries).toBe(1))
  const rest = Array.from({ length: 999 }, () => locked.run('a', table.read))
  const other = new Table()
  other.isHeld = false
  expect(await locked.run('b', other.read)).toBe('rows')
  await eventually(() => expect(table.tries).toBeGreaterThan(3))
  expect(table.tries).toBeLessThan(10)
  const triesBefore = table.tries
  table.isHeld = false
  expect(new Set(await Promise.all([first, ...rest]))).toEqual(new Set(['rows']))
  expect(table.tries - triesBefore).toBeLessThanOrEqual(1001)
})

test('[P8] whoever has waited long enough is told so, also who only waited for another', async () => {
  const locked = new Locked({ patienceMs: 150, queueLimit: 10_000 })
  const table = new Table()
  const waiting = [locked.run('a', table.read)]
  await eventually(() => expect(table.tries).toBe(1))
  waiting.push(locked.run('a', table.read))
  for (const each of waiting) await expect(each).rejects.toMatchObject({ code: 'UNAVAILABLE' })
  await expect(untilUnlocked(table.read, 100)).rejects.toMatchObject({ code: 'UNAVAILABLE' })
  table.isHeld = false
  expect(await locked.run('a', table.read)).toBe('rows')
})

test('[P7] past the bound nobody waits for another; what fails otherwise fails at once, and lets the next one try', async () => {
  const locked = new Locked({ patienceMs: 10_000, queueLimit: 1 })
  const table = new Table()
  let fails = false
  const read = (): Promise<string> => (fails ? Promise.reject(new Error('gone')) : table.read())
  const first = locked.run('a', read)
  await eventually(() => expect(table.tries).toBe(1))
  const second = locked.run('a', table.read)
  await expect(locked.run('a', table.read)).rejects.toMatchObject({ code: 'BUSY' })
  fails = true
  await expect(first).rejects.toThrow('gone')
  table.isHeld = false
  expect(await second).toBe('rows')
})
