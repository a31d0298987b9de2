import { expect, test } from 'vitest'
import { TidegateError } from '../../../src/protocol/tidegate-error.ts'
import { Counts } from '../../../src/server/figures/figures.ts'
import { createLog } from '../../../src/server/log/log.ts'
import { Trouble } from '../../../src/server/log/trouble.ts'

function begin() {
  const said: string[] = []
  const clock = { now: 1000 }
  const log = createLog('silent')
  for (const level of ['info', 'warn', 'error'] as const)
    log[level] = ((fields: { code?: string }) => said.push(`${level} ${fields.code ?? ''}`.trim())) as typeof log.info
  return { said, clock, trouble: new Trouble(log, () => clock.now) }
}

const reset = Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' })
const lost = new TidegateError('DATABASE_UNREACHABLE', 'the replication connection was lost')
const shutdown = Object.assign(new Error('the database system is shutting down'), { code: '57P03' })

test('[P8] a database that is away is told once, whoever notices and however often, and that it is back once', () => {
  const { said, clock, trouble } = begin()
  for (const error of [lost, reset, shutdown, reset, lost]) trouble.noticed(error)
  clock.now = 2000
  trouble.over(1500)
  trouble.over(1600)
  expect(said).toEqual(['warn DATABASE_UNREACHABLE', 'info'])
})

test('a heartbeat from before the trouble does not end it', () => {
  const { said, trouble } = begin()
  trouble.noticed(lost)
  trouble.over(999)
  expect([said, trouble.isOpen]).toEqual([['warn DATABASE_UNREACHABLE'], true])
})

test('an attempt that hung since before it was over is no news, a later one is', () => {
  const { said, clock, trouble } = begin()
  trouble.noticed(lost)
  clock.now = 2000
  trouble.over(1500)
  clock.now = 9000
  trouble.noticed(reset, 1200)
  expect(said).toEqual(['warn DATABASE_UNREACHABLE', 'info'])
  trouble.noticed(reset, 8000)
  expect(said.length).toBe(3)
})

test('[P8] what an operator must mend is told besides, with its code', () => {
  const { said, trouble } = begin()
  trouble.noticed(lost)
  const missing = new TidegateError('PUBLICATION_MISSING', 'there is no publication tidegate')
  for (let i = 0; i < 5; i++) trouble.noticed(missing)
  expect(said).toEqual(['warn DATABASE_UNREACHABLE', 'warn PUBLICATION_MISSING'])
})

test('a slot past its limit is left to the session that drops it', () => {
  const { said, trouble } = begin()
  trouble.noticed(new TidegateError('SLOT_OVER_LIMIT', 'the slot keeps too much'))
  expect(said).toEqual([])
})

test('what is over already is counted, and neither told nor waited for', () => {
  const counts = new Counts()
  const said: string[] = []
  const log = createLog('silent')
  log.warn = (() => said.push('warn')) as typeof log.warn
  const trouble = new Trouble(log, () => 0, counts)
  trouble.count('SLOT_LOST')
  trouble.count('SLOT_LOST')
  expect(counts.of('SLOT_LOST')).toBe(2)
  expect(trouble.isOpen).toBe(false)
  expect(said).toEqual([])
})
