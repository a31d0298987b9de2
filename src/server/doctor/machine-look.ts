// What can be known of the machine: read from the kernel and from Node.
import { mkdtempSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'

export interface MachineLook {
  /** As `24.1.0`. */
  readonly nodeVersion: string
  /** The oldest major version that will do. */
  readonly nodeNeeded: number
  /** As `readOpenFilesLimit`. */
  readonly openFiles: number | null | undefined
  /** Of the machine, or what its container may use. */
  readonly memoryBytes: number
  readonly spool: SpoolLook
}

export interface SpoolLook {
  readonly folder: string
  /** Null: not known. */
  readonly freeBytes: number | null
  /** Why nothing can be written there; null: it can. */
  readonly failure: string | null
}

/** Writes a file of one byte into the temporary folder, and deletes it. @throws nothing */
export const lookAtMachine = (): MachineLook => ({
  nodeVersion: process.versions.node,
  nodeNeeded: 24,
  openFiles: readOpenFilesLimit(),
  memoryBytes: memoryBytes(),
  spool: lookAtSpool(tmpdir()),
})

/** The soft limit of files this process may have open; Node raises it to the hard one when it starts. Null: unlimited; undefined:
 *  it is not known (no /proc). */
export function readOpenFilesLimit(path = '/proc/self/limits'): number | null | undefined {
  try {
    const soft = /^Max open files\s+(\S+)/m.exec(readFileSync(path, 'utf8'))?.[1]
    if (soft === undefined) return undefined
    return soft === 'unlimited' ? null : Number(soft)
  } catch {
    return undefined
  }
}

/** Node knows of the limits of control groups, of both versions; 0, or more than there is, means none. */
function memoryBytes(): number {
  const constrained = process.constrainedMemory()
  return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem()
}

export function lookAtSpool(folder: string): SpoolLook {
  try {
    const own = mkdtempSync(join(folder, 'tidegate-doctor-'))
    try {
      writeFileSync(join(own, 'try'), 'x')
    } finally {
      rmSync(own, { recursive: true, force: true })
    }
  } catch (error) {
    return { folder, freeBytes: null, failure: (error as Error).message }
  }
  try {
    const { bavail, bsize } = statfsSync(folder)
    return { folder, freeBytes: bavail * bsize, failure: null }
  } catch {
    return { folder, freeBytes: null, failure: null }
  }
}
