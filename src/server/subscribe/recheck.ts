// After the catalog changed: which subscriptions stand as they are, and which do not.
//
// Most changes concern few: a migration makes a table, a function is replaced that one policy calls. So what a role may read
// of a table is read and compared once, for all who read it; only where that differs is each reader prepared anew.
import { createHash } from 'node:crypto'
import { shapeOf, type Table, type TableAccess } from '../catalog/table.ts'
import { Slice } from '../route/slice.ts'
import { type Prepared, type PrepareOptions, prepare, readAccess } from './prepare.ts'
import type { Principal, SubscribeRequest } from './subscription.ts'

/** One who subscribed. */
export interface Standing {
  readonly principal: Principal
  readonly request: SubscribeRequest
  /** What its role may read of its table, as it was prepared by. */
  access: TableAccess
}

export interface Recheck<S extends Standing> {
  readonly prepare: PrepareOptions
  readonly standings: readonly S[]
  /** Its answer was prepared anew; null when it could not be, for the reason given. */
  readonly tell: (standing: S, prepared: Prepared | null, error: unknown) => void
}

/** How long the policies of one table may take to be read, some milliseconds where nothing is in the way: longer while a
 *  migration locks it. */
const maxReadMs = 2000
/** Read at a time. */
const readers = 2

/** Tells of each whose answer may be another one. Reads from the database, and never waits for the stream. */
export async function recheck<S extends Standing>({ prepare: options, standings, tell }: Recheck<S>): Promise<void> {
  const checks = [...new Map(standings.map(standing => [standing.access, standing])).values()]
  const found = new Map<TableAccess, TableAccess | 'differs' | Refused>()
  const walk = checks.values()
  const work = async (): Promise<void> => {
    for (const standing of walk) found.set(standing.access, await compared(options, standing))
  }
  await Promise.all(Array.from({ length: readers }, work))
  const slice = new Slice()
  for (const standing of standings) {
    const now = found.get(standing.access)!
    if (now === 'differs') {
      try {
        const prepared = await prepare(options, standing.principal, standing.request)
        standing.access = prepared.access
        tell(standing, prepared, null)
      } catch (error) {
        tell(standing, null, error)
      }
    } else if (now instanceof Refused) tell(standing, null, now.cause)
    else standing.access = now
    if (slice.over()) await slice.next()
  }
}

/** Nobody may read the table by this role any more, or nobody knows: the same for all. */
class Refused {
  readonly cause: unknown

  constructor(cause: unknown) {
    this.cause = cause
  }
}

/** @returns what the role may read now, where that is what it was */
async function compared(
  options: PrepareOptions,
  { principal, request, access }: Standing,
): Promise<TableAccess | 'differs' | Refused> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('its policies could not be read in time')), maxReadMs)
  })
  try {
    const now = await Promise.race([readAccess(options, principal.role, request), late])
    return digestOf(now) === digestOf(access) ? now : 'differs'
  } catch (error) {
    return new Refused(error)
  } finally {
    clearTimeout(timer)
  }
}

const digests = new WeakMap<object, string>()

/** Equal for two readings by which everybody is judged alike. */
export function digestOf(access: object): string {
  let digest = digests.get(access)
  if (digest === undefined) {
    digest = createHash('sha256').update(JSON.stringify(access, plain)).digest('base64url')
    digests.set(access, digest)
  }
  return digest
}

function plain(_: string, value: unknown): unknown {
  if (value instanceof Set) return [...value].sort()
  if (value instanceof Map) return [...value]
  if (value instanceof Error) return value.message
  if (typeof value === 'bigint') return String(value)
  if (isTable(value)) return [value.schema, value.name, shapeOf(value)]
  return value
}

const isTable = (value: unknown): value is Table =>
  typeof value === 'object' && value !== null && 'oid' in value && 'columns' in value && 'identity' in value
