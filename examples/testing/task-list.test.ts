import assert from 'node:assert/strict'
import { after, afterEach, test } from 'node:test'
import { startTidegate } from 'tidegate/testing'
import { type Database, TaskList } from './task-list.ts'

const ada = '00000000-0000-4000-8000-000000000ada'
const ben = '00000000-0000-4000-8000-000000000b0b'

// One for all tests of the file: they share the server, and each begins with empty tables.
const tide = await startTidegate({ setup: new URL('schema.sql', import.meta.url) })
after(() => tide[Symbol.asyncDispose]())
afterEach(() => tide.query('TRUNCATE tasks, team_members'))

const listOf = (user: string): TaskList => new TaskList(tide.client<Database>(user), 7)

test('a task shows up with its commit, and is gone once it is done', async () => {
  await tide.sql`INSERT INTO team_members VALUES (7, ${ada})`
  const list = listOf(ada)
  await tide.sql`INSERT INTO tasks (team_id, title) VALUES (7, 'Water the plants'), (8, 'Another team'), (7, 'Feed the cat')`
  await tide.waitForIdle()
  assert.deepEqual(list.titles, ['Water the plants', 'Feed the cat'])
  await tide.sql`UPDATE tasks SET done = true WHERE title = ${'Water the plants'}`
  await tide.waitForIdle()
  assert.deepEqual(list.titles, ['Feed the cat'])
})

test('the policies hold: who leaves the team sees nothing more, who joins sees all', async () => {
  await tide.sql`INSERT INTO team_members VALUES (7, ${ada})`
  await tide.sql`INSERT INTO tasks (team_id, title) VALUES (7, 'Water the plants')`
  const [adas, bens] = [listOf(ada), listOf(ben)]
  await tide.waitForIdle()
  assert.deepEqual([adas.titles, bens.titles], [['Water the plants'], []])
  await tide.sql`UPDATE team_members SET user_id = ${ben}`
  await tide.waitForIdle()
  assert.deepEqual([adas.titles, bens.titles], [[], ['Water the plants']])
})

test('a restart of the server in the middle loses nothing', async () => {
  await tide.sql`INSERT INTO team_members VALUES (7, ${ada})`
  const list = listOf(ada)
  await tide.waitForIdle()
  const restarted = tide.restart()
  await tide.sql`INSERT INTO tasks (team_id, title) VALUES (7, 'Written meanwhile')`
  await restarted
  await tide.waitForIdle()
  assert.deepEqual(list.titles, ['Written meanwhile'])
})
