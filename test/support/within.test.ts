import { spawn } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { expect, test } from 'vitest'
import { crowding, expectWithin } from './within.ts'

test('the more others compute on the machine, the longer something may take', () => {
  const alone = Math.min(crowding(), crowding(), crowding())
  expect(alone).toBeGreaterThanOrEqual(1)
  const others = Array.from({ length: 8 * availableParallelism() }, () =>
    spawn(process.execPath, ['-e', 'process.stdout.write("computes"); for (;;);']),
  )
  try {
    expect(Math.max(crowding(), crowding(), crowding())).toBeGreaterThan(alone)
  } finally {
    for (const other of others) other.kill('SIGKILL')
  }
})

test('what took longer than its limit, however crowded it is, is refused', () => {
  expectWithin(99, 100)
  expect(() => expectWithin(1e9, 100)).toThrow('to be less than')
})
