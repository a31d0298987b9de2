import { expect, test } from 'vitest'
import { TestDatabase } from './postgres.ts'

test('each test file gets a database of its own with logical WAL', async () => {
  await using database = await TestDatabase.create()
  expect(await database.query('SHOW wal_level')).toEqual([{ wal_level: 'logical' }])
})
