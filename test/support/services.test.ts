import { createServer } from 'node:net'
import { expect, test } from 'vitest'
import { findOnPath, programFromPackage } from './debian-package.ts'
import { whyNoDocker } from './docker.ts'

test('a program is found on the PATH by the first name that is there', async () => {
  expect(await findOnPath('no-such-program', 'sh')).toMatch(/\/sh$/)
  expect(await findOnPath('no-such-program')).toBeNull()
})

test('a program nobody has is never skipped silently: the failure names it', async () => {
  const before = process.env.PATH
  process.env.PATH = '/nowhere'
  try {
    await expect(programFromPackage(['redis-server'], 'redis')).rejects.toThrow('apt-get install redis')
  } finally {
    process.env.PATH = before
  }
})

test('a Docker engine that takes the connection and says nothing does not hold up the tests', async () => {
  const silent = createServer(() => {})
  await new Promise<void>(resolve => silent.listen(0, '127.0.0.1', resolve))
  const address = silent.address()
  const before = process.env.DOCKER_HOST
  try {
    process.env.DOCKER_HOST = `tcp://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`
    expect(await whyNoDocker()).not.toBeNull()
  } finally {
    if (before === undefined) delete process.env.DOCKER_HOST
    else process.env.DOCKER_HOST = before
    silent.close()
  }
})
