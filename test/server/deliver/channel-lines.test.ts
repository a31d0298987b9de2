import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ChannelLines } from '../../../src/server/deliver/channel-lines.ts'

test('tasks of a channel begin and are answered in order, whatever each takes; only sends run beside each other', async () => {
  const taskOf = fc.record({
    channel: fc.constantFrom('a', 'b'),
    isSend: fc.boolean(),
    turns: fc.integer({ min: 0, max: 3 }),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(taskOf), async asked => {
      const lines = new ChannelLines(() => {})
      const begun: number[] = []
      const answered: number[] = []
      const running = new Set<number>()
      await new Promise<void>(resolve => {
        if (asked.length === 0) resolve()
        asked.forEach(({ channel, isSend, turns }, n) => {
          const isFirst = asked.findIndex(other => other.channel === channel) === n
          const run = async (): Promise<() => void> => {
            begun.push(n)
            const beside = [...running].filter(other => asked[other]!.channel === channel)
            if (!isSend) expect(beside).toEqual([])
            for (const other of beside) expect(asked[other]!.isSend).toBe(true)
            running.add(n)
            for (let turn = 0; turn < turns; turn++) await Promise.resolve()
            running.delete(n)
            return () => {
              answered.push(n)
              if (answered.length === asked.length) resolve()
            }
          }
          lines.add(channel, { chars: 1, isSend, run })
          if (isFirst) expect(begun.at(-1)).toBe(n)
        })
      })
      for (const channel of ['a', 'b']) {
        const own = asked.flatMap((task, n) => (task.channel === channel ? [n] : []))
        expect(begun.filter(n => own.includes(n))).toEqual(own)
        expect(answered.filter(n => own.includes(n))).toEqual(own)
      }
    }),
  )
})

test('sends of a channel do not wait for each other', async () => {
  const lines = new ChannelLines(() => {})
  let begun = 0
  for (let n = 0; n < 10; n++) {
    const run = () => {
      begun += 1
      return new Promise<() => void>(() => {})
    }
    lines.add('a', { chars: 1, isSend: true, run })
  }
  expect(begun).toBe(10)
})

test('[P7] it is full at 64 tasks or 256 KiB, and says once when it is not any more', async () => {
  let rooms = 0
  const lines = new ChannelLines(() => {
    rooms += 1
  })
  const releases: (() => void)[] = []
  const add = (chars: number) =>
    lines.add('a', {
      chars,
      isSend: true,
      run: () => new Promise<() => void>(resolve => releases.push(() => resolve(() => {}))),
    })
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
  const task = (name: string) => ({ chars: 1, isSend: false, run: () => void ran.push(name) })
  lines.add('a', {
    chars: 1,
    isSend: false,
    run: () => {
      ran.push('first')
      return new Promise<() => void>(resolve => {
        release = () => resolve(() => {})
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
