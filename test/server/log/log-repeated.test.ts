// Lines that can be caused again and again, and what of an error may stand in one.
import { expect, test } from 'vitest'
import type { Log } from '../../../src/server/log/log.ts'
import { Repeated, repeated } from '../../../src/server/log/log-repeated.ts'

type Line = Record<string, unknown> & { level: string; text: string }

function listen(): { log: Log; lines: Line[] } {
  const lines: Line[] = []
  const at = (level: string) => (fields: Record<string, unknown>, text: string) =>
    void lines.push({ level, text, ...fields })
  const log = { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') } as unknown as Log
  return { log, lines }
}

const everyMs = 20

test('[P7] the first of a kind is told, and what follows is one line with a count, then silence', async () => {
  const { log, lines } = listen()
  const telling = new Repeated(log, everyMs)
  for (let i = 0; i < 10_000; i++) telling.warn({ code: 'POLICY_SLOW', i }, 'a policy is slow')
  expect(lines).toEqual([{ level: 'warn', text: 'a policy is slow', code: 'POLICY_SLOW', i: 0 }])
  await expect.poll(() => lines.length).toBe(2)
  expect(lines[1]).toEqual({ level: 'warn', text: 'a policy is slow', code: 'POLICY_SLOW', i: 9999, count: 9999 })
})

test('what goes on is told again and again, and every one is counted', async () => {
  const { log, lines } = listen()
  const telling = new Repeated(log, everyMs)
  let calls = 0
  const told = () => lines.reduce((sum, { count }) => sum + (typeof count === 'number' ? count : 1), 0)
  const goOn = (): number => {
    calls += 1
    telling.error({}, 'again')
    return lines.filter(({ count }) => count !== undefined).length
  }
  await expect.poll(goOn, { interval: 1 }).toBe(3)
  await expect.poll(told).toBe(calls)
  expect(lines.length).toBeLessThan(calls)
})

test('what is counted when a server ends is told then, once', () => {
  const { log, lines } = listen()
  const telling = new Repeated(log, 60_000)
  for (let i = 0; i < 5; i++) telling.warn({ code: 'A' }, 'text')
  telling.error({ code: 'B' }, 'alone')
  telling.flush()
  telling.flush()
  expect(lines.map(({ text, count }) => [text, count])).toEqual([
    ['text', undefined],
    ['alone', undefined],
    ['text', 4],
  ])
})

test('lines are of one kind by level, text, code, table and role', () => {
  const { log, lines } = listen()
  const telling = new Repeated(log, everyMs)
  for (let i = 0; i < 3; i++) {
    telling.warn({ code: 'A' }, 'text')
    telling.warn({ code: 'B' }, 'text')
    telling.warn({ table: 'a' }, 'text')
    telling.warn({ table: 'a', role: 'b' }, 'text')
    telling.error({ code: 'A' }, 'text')
    telling.warn({ code: 'A' }, 'another text')
    telling.warn({ code: 'A', err: new Error(String(i)) }, 'text')
  }
  expect(lines).toHaveLength(6)
})

test('[P7] past two hundred kinds the others count as one', async () => {
  const { log, lines } = listen()
  const telling = new Repeated(log, everyMs)
  for (let i = 0; i < 5000; i++) telling.warn({}, `text ${i}`)
  expect(lines).toHaveLength(201)
  await expect.poll(() => lines.length).toBe(202)
  expect(lines[201]).toMatchObject({ text: 'text 4999', count: 4799 })
})

test('a log has one of them', () => {
  const { log } = listen()
  expect(repeated(log)).toBe(repeated(log))
  expect(repeated(listen().log)).not.toBe(repeated(log))
})
