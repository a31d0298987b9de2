// Where the Postgres and the Redis of a test are: at a given address, or in containers that all who ask in this process share.
import { TidegateError } from '../protocol/tidegate-error.ts'

export interface Service extends AsyncDisposable {
  readonly url: string
}

export interface ServiceWishes {
  /** Wins over the environment, as the image does. */
  readonly url: string | undefined
  readonly image: string | undefined
  /** The container is left running, and taken again by whoever asks for the same. */
  readonly isReused: boolean
}

interface Kind {
  readonly title: string
  readonly variable: string
  readonly option: string
  readonly imageVariable: string
  readonly image: string
  readonly start: (image: string, isReused: boolean) => Promise<RunningContainer>
}

interface RunningContainer {
  readonly url: string
  stop(): Promise<unknown>
}

interface Shared {
  readonly container: Promise<RunningContainer>
  users: number
}

const kinds = {
  postgres: {
    title: 'Postgres',
    variable: 'TEST_DATABASE_URL',
    option: 'databaseUrl',
    imageVariable: 'TEST_POSTGRES_IMAGE',
    image: 'postgres:17',
    start: startPostgres,
  },
  redis: {
    title: 'Redis',
    variable: 'TEST_REDIS_URL',
    option: 'redisUrl',
    imageVariable: 'TEST_REDIS_IMAGE',
    image: 'redis:7',
    start: startRedis,
  },
} as const satisfies Record<string, Kind>

/** By kind and image: as many as a process asks for. One ends with its last user. */
const shared = new Map<string, Shared>()
/** An engine that is there answers in some milliseconds. */
const answerMs = 10_000

/** @throws SERVICES_MISSING that says what to install, start or set */
export async function findService(kind: keyof typeof kinds, wishes: ServiceWishes): Promise<Service> {
  const { variable, imageVariable } = kinds[kind]
  const given = wishes.url ?? process.env[variable]
  if (given) return { url: given, [Symbol.asyncDispose]: async () => {} }
  const image = wishes.image ?? process.env[imageVariable] ?? kinds[kind].image
  const name = `${kind} ${image}`
  const one = shared.get(name) ?? { container: startContainer(kinds[kind], image, wishes.isReused), users: 0 }
  shared.set(name, one)
  one.users += 1
  const leave = (): boolean => {
    one.users -= 1
    if (one.users > 0) return false
    if (shared.get(name) === one) shared.delete(name)
    return true
  }
  try {
    const { url, stop } = await one.container
    return {
      url,
      [Symbol.asyncDispose]: async () => {
        if (leave() && !wishes.isReused) await stop()
      },
    }
  } catch (error) {
    leave()
    throw error
  }
}

async function startContainer(kind: Kind, image: string, isReused: boolean): Promise<RunningContainer> {
  const { getContainerRuntimeClient } = await loadTestcontainers(kind)
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(() => late.reject(new Error(`no answer within ${answerMs} ms`)), answerMs)
  try {
    await Promise.race([getContainerRuntimeClient(), late.promise])
  } catch (cause) {
    throw missing(kind, `no Docker engine answers (${messageOf(cause)})`, 'Start Docker', cause)
  } finally {
    clearTimeout(timer)
  }
  try {
    return await kind.start(image, isReused)
  } catch (cause) {
    throw missing(kind, `Docker cannot start ${image} (${messageOf(cause)})`, `Run docker pull ${image}`, cause)
  }
}

/** Only tests need it, so it comes with nothing else. */
async function loadTestcontainers(kind: Kind): Promise<typeof import('testcontainers')> {
  try {
    return await import('testcontainers')
  } catch (cause) {
    const why = 'the package testcontainers, which starts it in Docker, cannot be loaded'
    throw missing(kind, why, 'npm install --save-dev testcontainers', cause)
  }
}

function missing({ title, variable, option }: Kind, why: string, remedy: string, cause: unknown): TidegateError {
  return new TidegateError(
    'SERVICES_MISSING',
    `startTidegate has no ${title}: ${why}. ${remedy}; or give the address of one: ${variable}, or the option ${option}`,
    { cause },
  )
}

/** Tests lose nothing in a crash of the machine. A few slots for each Tidegate at a time. */
const postgresSettings = {
  wal_level: 'logical',
  max_wal_senders: '40',
  max_replication_slots: '40',
  max_connections: '200',
  max_slot_wal_keep_size: '2GB',
  fsync: 'off',
}

/** Nothing in it is kept. Docker otherwise waits for it to end by itself. */
const atOnce = { timeout: 0 }

async function startPostgres(image: string, isReused: boolean): Promise<RunningContainer> {
  const { GenericContainer, Wait } = await import('testcontainers')
  const asked = new GenericContainer(image)
    .withEnvironment({ POSTGRES_PASSWORD: 'postgres', POSTGRES_INITDB_ARGS: '--locale=C --encoding=UTF8' })
    .withCommand(['postgres', ...Object.entries(postgresSettings).flatMap(([key, value]) => ['-c', `${key}=${value}`])])
    .withExposedPorts(5432)
    // The image starts a server for its set-up, stops it, and starts the real one: the second line counts.
    .withWaitStrategy(Wait.forLogMessage(/database system is ready to accept connections/, 2))
  const container = await (isReused ? asked.withReuse() : asked).start()
  const address = `${container.getHost()}:${container.getMappedPort(5432)}`
  return { url: `postgres://postgres:postgres@${address}/postgres`, stop: () => container.stop(atOnce) }
}

async function startRedis(image: string, isReused: boolean): Promise<RunningContainer> {
  const { GenericContainer } = await import('testcontainers')
  const asked = new GenericContainer(image).withExposedPorts(6379)
  const container = await (isReused ? asked.withReuse() : asked).start()
  return { url: `redis://${container.getHost()}:${container.getMappedPort(6379)}`, stop: () => container.stop(atOnce) }
}

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message.split('\n', 1)[0]! : String(error)
