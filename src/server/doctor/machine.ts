// What the doctor says of the machine: files it may open, memory, the temporary folder, Node.
import type { Config } from '../config/config.ts'
import { roomWithin } from '../config/descriptors.ts'
import { failure, ok, setting, shell, unknown, warning } from './checks.ts'
import type { Finding } from './finding.ts'
import type { MachineLook } from './machine-look.ts'

const MiB = 1024 * 1024

/** @param openFiles how many files this process may have open (RLIMIT_NOFILE, the soft limit); null: unlimited; undefined: not known */
export function descriptorFindings(
  sizes: Pick<Config, 'maxConnections' | 'databasePool'>,
  openFiles: number | null | undefined,
): Finding[] {
  const { maxConnections } = sizes
  const { maxConnections: fitting, neededFiles: needed } = roomWithin(sizes, openFiles)
  if (openFiles === undefined)
    return [unknown('descriptors', `how many files this process may open cannot be read here; it needs ${needed}`)]
  if (openFiles === null) return [ok('descriptors', 'this process may open any number of files')]
  if (openFiles >= needed)
    return [
      ok(
        'descriptors',
        `this process may open ${openFiles} files; MAX_CONNECTIONS is ${maxConnections}, which takes ${needed}`,
      ),
    ]
  return [
    failure(
      'descriptors',
      `this process may open ${openFiles} files, and MAX_CONNECTIONS is ${maxConnections}, which takes ${needed}: a node holds only ${fitting}`,
      shell(
        `ulimit -n ${needed}`,
        `in the shell that starts the node, or LimitNOFILE=${needed} in its unit${fitting > 0 ? `; or set MAX_CONNECTIONS=${fitting}` : ''}`,
      ),
      { code: 'DESCRIPTORS_SHORT' },
    ),
  ]
}

type Sizes = Pick<
  Config,
  | 'maxConnections'
  | 'databasePool'
  | 'sendQueueBytes'
  | 'windowMaxBytes'
  | 'ringMaxBytes'
  | 'windowsMaxBytes'
  | 'spoolBytes'
  | 'membershipIndexMaxRows'
>

/** Bytes that one idle connection takes, a query of its own included: docs/operations.md, "Sizing". */
const connectionBytes = 10_000
const membershipRowBytes = 100
const emptyNodeBytes = 256 * MiB

/** What a node takes with everything at its bound, but no client slow. */
export const neededBytes = (sizes: Sizes): number =>
  emptyNodeBytes +
  2 * sizes.windowMaxBytes +
  sizes.ringMaxBytes +
  sizes.windowsMaxBytes +
  sizes.spoolBytes +
  sizes.maxConnections * connectionBytes

/** One client in a hundred slow at once is a bad day. */
const slowShare = 0.01

function memoryFindings(sizes: Sizes, bytes: number): Finding[] {
  const needed = neededBytes(sizes)
  const queues = sizes.maxConnections * sizes.sendQueueBytes * slowShare
  const index = sizes.membershipIndexMaxRows * membershipRowBytes
  const has = `this machine gives ${mebibytes(bytes)}`
  if (bytes < needed)
    return [
      (bytes < emptyNodeBytes + 2 * sizes.windowMaxBytes ? failure : warning)(
        'memory',
        `${has}; a node with its windows full and MAX_CONNECTIONS ${sizes.maxConnections} takes ${mebibytes(needed)}`,
        smallerSizes(sizes, bytes),
      ),
    ]
  if (bytes < needed + queues)
    return [
      warning(
        'memory',
        `${has}; a node with its windows full takes ${mebibytes(needed)}, and SEND_QUEUE_BYTES ${sizes.sendQueueBytes} for one slow client in a hundred of MAX_CONNECTIONS ${mebibytes(queues)} more`,
        setting(`SEND_QUEUE_BYTES=${roundDown((bytes - needed) / (sizes.maxConnections * slowShare))}`),
      ),
    ]
  if (bytes < needed + queues + index)
    return [
      warning(
        'memory',
        `${has}; ${mebibytes(needed + queues)} are for windows and connections, and MEMBERSHIP_INDEX_MAX_ROWS ${sizes.membershipIndexMaxRows} may take ${mebibytes(index)} more`,
        setting(`MEMBERSHIP_INDEX_MAX_ROWS=${Math.max(1, Math.floor((bytes - needed - queues) / membershipRowBytes))}`),
      ),
    ]
  return [ok('memory', `${has}, and the options take at most ${mebibytes(needed + queues + index)}`)]
}

/** Options by which a node fits into so much; null if none does. */
function smallerSizes(sizes: Sizes, bytes: number): Finding['remedy'] {
  const rest = bytes - emptyNodeBytes
  if (rest < 32 * MiB) return null
  // A third for connections, the rest for what is held for them.
  const connections = Math.min(sizes.maxConnections, Math.floor(rest / 3 / connectionBytes))
  const share = (rest * 2) / 3 / 7
  const window = Math.min(sizes.windowMaxBytes, roundDown(share))
  const lines = [
    `MAX_CONNECTIONS=${connections}`,
    `WINDOW_MAX_BYTES=${window}`,
    `RING_MAX_BYTES=${Math.min(sizes.ringMaxBytes, roundDown(share))}`,
    `WINDOWS_MAX_BYTES=${Math.min(sizes.windowsMaxBytes, roundDown(share))}`,
    `SPOOL_BYTES=${Math.min(sizes.spoolBytes, roundDown(share))}`,
    `SEND_QUEUE_BYTES=${Math.min(sizes.sendQueueBytes, roundDown(share / connections / slowShare))}`,
    `MEMBERSHIP_INDEX_MAX_ROWS=${Math.min(sizes.membershipIndexMaxRows, Math.floor(share / 2 / membershipRowBytes))}`,
  ]
  return setting(lines.join('\n'), 'restart every node; or give it more memory')
}

/** @param look of the temporary folder; large transactions wait there while they are read */
function spoolFindings({ spoolBytes }: Sizes, { folder, freeBytes, failure: why }: MachineLook['spool']): Finding[] {
  if (why !== null)
    return [
      failure(
        'spool',
        `nothing can be written to ${folder}: ${why}; a transaction larger than SPOOL_BYTES would stop the stream`,
        shell('export TMPDIR=/var/tmp', 'restart the node with it, or with another folder that it may write to'),
        { code: 'SPOOL_FAILED' },
      ),
    ]
  if (freeBytes === null) return [unknown('spool', `how much room ${folder} has cannot be read`)]
  const wanted = Math.max(1024 * MiB, 4 * spoolBytes)
  if (freeBytes < wanted)
    return [
      warning(
        'spool',
        `${folder} has ${mebibytes(freeBytes)} left; a transaction larger than SPOOL_BYTES waits there whole, and ${mebibytes(wanted)} is little for one`,
        shell('export TMPDIR=/var/tmp', 'restart the node with it, or with another folder that has room'),
        { code: 'SPOOL_FAILED' },
      ),
    ]
  return [ok('spool', `${folder} can be written to, and has ${mebibytes(freeBytes)} left`)]
}

function nodeFindings(version: string, needed: number): Finding[] {
  if (Number.parseInt(version, 10) >= needed) return [ok('node-version', `it is Node ${version}`)]
  return [
    failure(
      'node-version',
      `it is Node ${version}, and Tidegate needs ${needed} or later`,
      shell(`npx --yes node@${needed} --version`, `install Node ${needed} or later, or run the Docker image`),
      { code: 'NODE_TOO_OLD' },
    ),
  ]
}

/** Pure. */
export function machineFindings(config: Sizes, look: MachineLook): Finding[] {
  return [
    ...nodeFindings(look.nodeVersion, look.nodeNeeded),
    ...descriptorFindings(config, look.openFiles),
    ...memoryFindings(config, look.memoryBytes),
    ...spoolFindings(config, look.spool),
  ]
}

const mebibytes = (bytes: number): string => `${Math.ceil(bytes / MiB)} MiB`
/** To whole KiB, and at least what an option of bytes takes. */
const roundDown = (bytes: number): number => Math.max(1024, Math.floor(bytes / 1024) * 1024)
