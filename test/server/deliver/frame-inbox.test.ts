import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { ClientFrame } from '../../../src/protocol/messages.ts'
import { FrameInbox } from '../../../src/server/deliver/frame-inbox.ts'

const frame = (id: number): ClientFrame => ({ type: 'unsubscribe', id })
const idsOf = (frames: readonly ClientFrame[]) => frames.map(one => (one.type === 'unsubscribe' ? one.id : -1))

const step = fc.oneof(
  fc.constant('next' as const),
  // A repetition of one of the last, as after a lost answer.
  fc.record({ again: fc.nat(3) }),
  fc.record({ skip: fc.integer({ min: 2, max: 4 }) }),
  fc.constant('pause' as const),
  fc.constant('resume' as const),
)

test('[P4] whatever comes again, too early, or while nothing is taken: each frame is handed over once, in order', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async steps => {
      const taken: ClientFrame[] = []
      const inbox = new FrameInbox(one => void taken.push(one))
      const bodies: ClientFrame[][] = []
      const done: Promise<void>[] = []
      let answered = 0
      let isPaused = false
      const settle = () => new Promise(resolve => setImmediate(resolve))
      for (const one of steps) {
        if (one === 'pause') {
          isPaused = true
          inbox.pause()
        } else if (one === 'resume') {
          isPaused = false
          inbox.resume()
        } else if (one === 'next') {
          // A client sends the next when the one before it was answered.
          if (answered < bodies.length) continue
          const first = bodies.flat().length
          bodies.push([frame(first), frame(first + 1)])
          const answer = inbox.post(bodies.length, bodies.at(-1)!)
          done.push(
            answer.then(() => {
              answered += 1
            }),
          )
        } else if ('again' in one) {
          const seq = bodies.length - one.again
          if (seq >= 1) done.push(inbox.post(seq, bodies[seq - 1]!))
        } else {
          await expect(inbox.post(bodies.length + one.skip, [frame(999)])).rejects.toMatchObject({ code: 'BAD_FRAME' })
        }
        await settle()
        expect(answered === bodies.length || isPaused).toBe(true)
      }
      inbox.resume()
      await Promise.all(done)
      expect(idsOf(taken)).toEqual(bodies.flat().map((_, id) => id))
    }),
  )
})

test('a session that pauses in the middle of a POST gets the rest when it goes on, and the POST is answered then', async () => {
  const taken: ClientFrame[] = []
  const inbox: FrameInbox = new FrameInbox(one => {
    taken.push(one)
    if (taken.length === 2) inbox.pause()
  })
  let isAnswered = false
  const answer = inbox.post(1, [0, 1, 2, 3].map(frame)).then(() => {
    isAnswered = true
  })
  await new Promise(resolve => setImmediate(resolve))
  expect([idsOf(taken), isAnswered]).toEqual([[0, 1], false])
  inbox.resume()
  await answer
  expect(idsOf(taken)).toEqual([0, 1, 2, 3])
})

test('[P8] one that ends refuses what waits and what comes', async () => {
  const inbox = new FrameInbox(() => {})
  inbox.pause()
  const waiting = inbox.post(1, [frame(1)])
  inbox.end()
  await expect(waiting).rejects.toMatchObject({ code: 'STREAM_UNKNOWN' })
  await expect(inbox.post(2, [])).rejects.toMatchObject({ code: 'STREAM_UNKNOWN' })
})
