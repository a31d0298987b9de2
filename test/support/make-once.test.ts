import { spawnSync } from 'node:child_process'
import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { hashOf, makeOnce } from './make-once.ts'

let base: string
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'make-once-'))
})
afterAll(() => rm(base, { recursive: true }))

test('of many that ask at once one makes it, and whoever asks later has it', async () => {
  const folder = join(base, 'many')
  let made = 0
  const make = async (at: string): Promise<void> => {
    made += 1
    await writeFile(join(at, 'text'), `${made}`)
  }
  await Promise.all([1, 2, 3, 4].map(() => makeOnce(folder, make)))
  await makeOnce(folder, make)
  expect([made, await readFile(join(folder, 'text'), 'utf8')]).toEqual([1, '1'])
})

test('what could not be made is made by the next that asks', async () => {
  const folder = join(base, 'failed')
  const failing = makeOnce(folder, async at => {
    await writeFile(join(at, 'half'), '')
    throw new Error('no')
  })
  await expect(failing).rejects.toThrow('no')
  await makeOnce(folder, at => writeFile(join(at, 'text'), 'whole'))
  expect(await readFile(join(folder, 'text'), 'utf8')).toBe('whole')
  await expect(readFile(join(folder, 'half'))).rejects.toThrow()
})

test('a process that was killed at it keeps nobody from making it', async () => {
  const folder = join(base, 'killed')
  await symlink(String(spawnSync('true').pid), `${folder}.lock`)
  await makeOnce(folder, at => writeFile(join(at, 'text'), 'made'))
  expect(await readFile(join(folder, 'text'), 'utf8')).toBe('made')
})

test('other contents have another hash', async () => {
  const hash = async (text: string): Promise<string> => {
    await writeFile(join(base, 'source'), text)
    return hashOf(base, ['source'])
  }
  expect(await hash('a')).toBe(await hash('a'))
  expect(await hash('a')).not.toBe(await hash('b'))
})
