import { expect, test, vi } from 'vitest'
import { eventually } from '../support/eventually.ts'
import { prepareDatabase, roomsSchema, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { namedFunctions } from './architecture.ts'

/** Loops that run since the start: they go on inside, and are not called for each row. */
const loops = new Set(['ReplicationStream.gulps', 'Pipeline.ingest', 'MemoryRelay.follow'])
const reader = '00000000-0000-4000-8000-00000000000a'

test('an inserted row passes the functions that docs/architecture.md names, in that order', async () => {
  const called: string[] = []
  const root = new URL('../../', import.meta.url)
  for (const { name, file } of namedFunctions) {
    const [owner = '', method] = name.split('.')
    // A function of a module cannot be watched from outside; the other test knows that it is there.
    if (method === undefined) continue
    const { [owner]: exported }: Record<string, { prototype: Record<string, (...args: unknown[]) => unknown> }> =
      await import(/* @vite-ignore */ new URL(file, root).href)
    const original = exported!.prototype[method]!
    vi.spyOn(exported!.prototype, method).mockImplementation(function (this: unknown, ...args: unknown[]) {
      called.push(name)
      return original.apply(this, args)
    })
  }
  await using database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members (room_id, user_id) VALUES (1, '${reader}')`)
  await using node = await TestNode.start(database.url)
  expect(called.filter(name => loops.has(name)).toSorted()).toEqual([...loops].toSorted())

  const socket = new WebSocket(`${node.url.replace('http', 'ws')}/v1/socket`)
  const frames: { type: string; changes?: { op: string }[] }[] = []
  socket.addEventListener('message', event => frames.push(JSON.parse(String(event.data))))
  await new Promise(resolve => socket.addEventListener('open', resolve, { once: true }))
  socket.send(JSON.stringify({ type: 'auth', token: await tokenFor(reader) }))
  socket.send(JSON.stringify({ type: 'subscribe', id: 1, kind: 'live', table: 'messages' }))
  await eventually(() => expect(frames.map(({ type }) => type)).toContain('snapshot'))

  called.length = 0
  // Somebody else's membership goes with it: a commit without any has none to apply.
  await database.query(`BEGIN; INSERT INTO members (room_id, user_id) VALUES (9, '00000000-0000-4000-8000-00000000000b');
    INSERT INTO messages VALUES (1, 1, 'ada', 'hello'); COMMIT`)
  await eventually(() => expect(frames.at(-1)).toMatchObject({ type: 'delta', changes: [{ op: 'insert' }] }))
  socket.close()

  // Heartbeats through the WAL pass the first of them too: what counts is the last way that leads to a delta.
  const end = called.lastIndexOf('Members.deliver')
  const start = called.lastIndexOf('MemoryRelay.append', end)
  const way = [...new Set([...called.slice(start - 1, end), ...called.slice(end)])]
  const watched = namedFunctions.map(({ name }) => name).filter(name => name.includes('.') && !loops.has(name))
  expect(way.filter(name => watched.includes(name))).toEqual(watched)
})
