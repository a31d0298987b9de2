import { expect, test } from 'vitest'
import { Progress } from '../../../../src/server/deliver/phoenix/progress.ts'
import { Rejoins } from '../../../../src/server/deliver/phoenix/rejoins.ts'

const [was, is, hoped] = [{ a: 'e-1.t' }, { a: 'e-2.t' }, { a: 'e-3.t' }]

test('over the same socket a client goes on from where its channel ended, once', () => {
  const rejoins = new Rejoins()
  expect(rejoins.join('alice')).toBeUndefined()
  expect(rejoins.leave({ owner: 'alice', positions: was }, hoped)).toBe(true)
  expect(rejoins.join('alice')).toEqual(hoped)
  expect(rejoins.join('alice')).toBeNull()
  expect(rejoins.join('bob')).toBeUndefined()
  expect(rejoins.rest()).toEqual([])
})

test('[P4] if the socket breaks instead, it goes on from where it is known to stand', () => {
  const rejoins = new Rejoins()
  rejoins.leave({ owner: 'alice', positions: was }, hoped)
  expect(rejoins.rest()).toEqual([{ owner: 'alice', positions: was }])
  expect(rejoins.rest()).toEqual([])
})

test('[P7] what a socket holds of channels that ended has a bound', () => {
  const rejoins = new Rejoins()
  const left = Array.from({ length: 300 }, (_, number) =>
    rejoins.leave({ owner: `owner ${number}`, positions: was }, hoped),
  )
  expect(left.filter(Boolean)).toHaveLength(200)
  expect(rejoins.leave({ owner: 'owner 7', positions: is }, hoped)).toBe(true)
  expect(rejoins.rest()).toHaveLength(200)
})

test('[P4] what a client missed counts as had only once it said so', () => {
  const progress = new Progress()
  expect(progress.known).toBeNull()
  progress.cameBack(was)
  expect(progress.known).toEqual(was)
  progress.joined({ ...is, b: 'e-2.u' })
  expect(progress.known).toEqual({ ...was, b: 'e-2.u' })
  const sent = { ...hoped, b: 'e-3.u' }
  progress.pinged(sent)
  expect(progress.known).toEqual({ ...was, b: 'e-2.u' })
  for (let pong = 1; pong <= 2; pong += 1) {
    progress.ponged()
    expect(progress.known).toEqual(sent)
  }
})

test('a pong of before the join says nothing of what came after it', () => {
  const progress = new Progress()
  progress.joined(is)
  progress.ponged()
  expect(progress.known).toEqual(is)
})

test('[P4] what was not asked about keeps its place; what is to begin anew has none', () => {
  const progress = new Progress()
  progress.joined({ channel: 'e-1.t', a: 'e-1.t', b: 'e-1.t' })
  // A channel whose history is still on its way stands nowhere.
  progress.pinged({ a: 'e-2.t', b: 'e-2.t' })
  progress.ponged()
  expect(progress.known).toEqual({ channel: 'e-1.t', a: 'e-2.t', b: 'e-2.t' })
  progress.lose(['b'])
  expect(progress.known).toEqual({ channel: 'e-1.t', a: 'e-2.t' })
  expect(progress.after({ a: 'e-3.t', b: 'e-3.t' }, ['b'])).toEqual({ channel: 'e-1.t', a: 'e-3.t' })
})

test('[P4] where a client went on from over another socket, nobody does again, unless it is there after all', () => {
  const progress = new Progress()
  progress.joined(was)
  progress.pinged(is)
  progress.taken(null)
  expect(progress.known).toBeNull()
  progress.ponged()
  expect(progress.known).toEqual(is)
})
