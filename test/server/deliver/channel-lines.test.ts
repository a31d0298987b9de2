import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ChannelLines } from '../../../src/server/deliver/channel-lines.ts'

test('tasks of a channel run one after the other, in order, whatever each takes; the first begins in the turn it is added', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ channel: fc.constantFrom('a', 'b'), turns: fc.integer({ min: 0, max: 3 }) })),
      async asked => {
        const lines = new ChannelLines(() => {})
        const begun: number[] = []
        const ended: number[] = []
        let left = asked.length
        await new Promise<void>(resolve => {
          if (left === 0) resolve()
          asked.forEach(({ channel, turns }, n) => {
            const isFirst = asked.findIndex(other => other.channel === channel) === n
            const run = async (): Promise<void> => {
              begun.push(n)
              for (let turn = 0; turn < turns; turn++) await Promise.resolve()
              ended.push(n)
              left -= 1
              if (left === 0) resolve()
            }
            lines.add(channel, { chars: 1, run })
            if (isFirst) expect(begun.at(-1)).toBe(n)
          })
        })
        for (const channel of ['a', 'b']) {
          const own = asked.flatMap((task, n) => (task.channel === channel ? [n] : []))
          expect(begun.filter(n => own.includes(n))).toEqual(own)
          expect(ended.filter(n => own.includes(n))).toEqual(own)
        }
      },
    ),
  )
})

test('[P7] it is full at 64 tasks or 256 KiB, and says once when it is not any more', async () => {
  let rooms = 0
  const lines = new ChannelLines(() => {
    rooms += 1
  })
  const releases: (() => void)[] = []
  const add = (chars: number) =>
    lines.add('a', { chars, run: () => new Promise<void>(resolve => releases.push(resolve)) })
  for (let n = 0; n < 63; n++) add(1)
  expect(lines.isFull).toBe(false)
  add(1)
  expect(lines.isFull).toBe(true)
  for (let n = 0; n < 64; n++) {
    releases.shift()!()
    await new Promise(resolve => setImmediate(resolve))
  }
  expect([lines.isFull, rooms]).toEqual([false, 1])
  add(256 * 1024)
  expect(lines.isFull).toBe(true)
})

test('what has not begun can be dropped; what has, ends, and the channel can be asked again', async () => {
  const lines = new ChannelLines(() => {})
  const ran: string[] = []
  let release: () => void = () => {}
  const task = (name: string) => ({ chars: 1, run: () => void ran.push(name) })
  lines.add('a', {
    chars: 1,
    run: () => {
      ran.push('first')
      return new Promise<void>(resolve => {
        release = resolve
      })
    },
  })
  lines.add('a', task('second'))
  lines.drop()
  lines.add('a', task('third'))
  expect(ran).toEqual(['first'])
  release()
  await new Promise(resolve => setImmediate(resolve))
  expect(ran).toEqual(['first', 'third'])
  lines.add('a', task('fourth'))
  expect(ran.at(-1)).toBe('fourth')
})
