// How many connections a process can hold with the files it may open, so that none of them takes what its database, its Redis or a
// large transaction needs. Pure.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Config } from './config.ts'

/** Of Node itself, the four connections of DATABASE_POOL, the replication session, Redis, files of large transactions. */
const ownFiles = 76
/** Sockets that have not asked for anything yet: whoever is refused must be heard first. At least a quarter as many as connections,
 *  within these. */
const [fewestUnheard, mostUnheard] = [16, 1024]

export interface Room {
  readonly maxConnections: number
  /** Sockets beside them that may wait to be heard. */
  readonly maxUnheard: number
  /** Files that MAX_CONNECTIONS takes in all, at least. */
  readonly neededFiles: number
}

type Sizes = Pick<Config, 'maxConnections' | 'databasePool'>

/** @param openFiles how many this process may have open; null: any number; undefined: it is not known, and all are hoped for
 *  @returns fewer connections than MAX_CONNECTIONS where there is no room for more: none at all below some hundred files */
export function roomWithin({ maxConnections, databasePool }: Sizes, openFiles: number | null | undefined): Room {
  const own = ownFiles + 2 * (databasePool - 4)
  const unheard = clampUnheard(Math.ceil(maxConnections / 4))
  const neededFiles = own + maxConnections + unheard
  if (openFiles == null) return { maxConnections, maxUnheard: mostUnheard, neededFiles }
  const left = openFiles - own
  if (openFiles >= neededFiles)
    return { maxConnections, maxUnheard: Math.min(mostUnheard, left - maxConnections), neededFiles }
  const maxUnheard = clampUnheard(Math.floor(left / 5))
  // Short by one file, all would fit beside a fifth that is rounded down.
  return { maxConnections: Math.max(0, Math.min(maxConnections - 1, left - maxUnheard)), maxUnheard, neededFiles }
}

const clampUnheard = (count: number): number => Math.min(mostUnheard, Math.max(fewestUnheard, count))

/** The same for a node that starts, with a word where it is less than was asked for.
 *  @throws DESCRIPTORS_SHORT when there is no room for a single connection */
export function takeRoom(
  sizes: Sizes,
  openFiles: number | null | undefined,
  warn: (facts: object, message: string) => void,
): Pick<Room, 'maxConnections' | 'maxUnheard'> {
  const { maxConnections, maxUnheard, neededFiles } = roomWithin(sizes, openFiles)
  if (maxConnections === sizes.maxConnections) return { maxConnections, maxUnheard }
  const message = `this process may open ${openFiles} files, and MAX_CONNECTIONS ${sizes.maxConnections} takes ${neededFiles}`
  if (maxConnections === 0)
    throw new TidegateError('DESCRIPTORS_SHORT', `${message}; there is no room for a connection`)
  const facts = { code: 'DESCRIPTORS_SHORT', openFiles, neededFiles, maxConnections }
  warn(facts, `${message}: it holds ${maxConnections} connections and refuses the others; raise ulimit -n`)
  return { maxConnections, maxUnheard }
}
