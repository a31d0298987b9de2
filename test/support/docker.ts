// Says whether a Docker engine answers here, in a moment: a machine without one must not wait for it.
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

const answerMs = 5000

/** @returns null when an engine answers, else why none is used */
export async function whyNoDocker(): Promise<string | null> {
  const places = [
    '/var/run/docker.sock',
    join(homedir(), '.docker/run/docker.sock'),
    join(process.env.XDG_RUNTIME_DIR ?? '/nowhere', 'docker.sock'),
    join(homedir(), '.testcontainers.properties'),
  ]
  // testcontainers takes a second to load, which a machine without Docker should not pay at every run.
  if (!process.env.DOCKER_HOST && !places.some(existsSync)) return 'no Docker engine'
  const { getContainerRuntimeClient } = await import('testcontainers')
  const { promise: late, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => reject(new Error(`the Docker engine did not answer in ${answerMs} ms`)), answerMs)
  try {
    await Promise.race([getContainerRuntimeClient(), late])
    return null
  } catch (error) {
    return reasonOf(error)
  } finally {
    clearTimeout(timer)
  }
}

export const reasonOf = (error: unknown): string =>
  error instanceof Error ? (error.message.split('\n')[0] ?? error.name) : String(error)
