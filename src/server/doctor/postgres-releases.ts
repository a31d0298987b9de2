// Minor releases of Postgres with faults that concern what Tidegate does: decoding the WAL, row-level security under many roles, indexes
// built concurrently. Source of each: the release notes, https://www.postgresql.org/docs/release/

import { failure, ok, shell, warning } from './checks.ts'
import type { Finding, Remedy } from './finding.ts'

interface Fault {
  /** The first minor of each major without it. */
  readonly mendedIn: Readonly<Record<number, number>>
  /** `failure` where rows may be lost or shown. */
  readonly verdict: 'failure' | 'warning'
  /** What may happen, as a clause. */
  readonly what: string
}

// biome-ignore format: one fault, one paragraph
const faults: readonly Fault[] = [
  // 14.4: "Prevent possible corruption of indexes created or rebuilt with the CONCURRENTLY option".
  { mendedIn: { 14: 4 }, verdict: 'failure',
    what: 'indexes built concurrently, as tidegate track --index does, may lack rows' },
  // 15.3, 14.8, CVE-2023-2455: "row security policies disregard user ID changes after inlining".
  { mendedIn: { 14: 8, 15: 3 }, verdict: 'failure',
    what: 'policies of another role may be applied in inlined functions (CVE-2023-2455)' },
  // 17.1, 16.5, 15.9, 14.14, CVE-2024-10976: "Ensure cached plans are marked as dependent on the calling role when RLS applies to a
  // non-top-level table reference".
  { mendedIn: { 14: 14, 15: 9, 16: 5, 17: 1 }, verdict: 'failure',
    what: 'a query may return rows that policies hide, when its plan was made for another role (CVE-2024-10976)' },
  // 17.2, 16.6, 15.10, 14.15: "Fix cases where a logical replication slot's restart_lsn could go backwards".
  { mendedIn: { 14: 15, 15: 10, 16: 6, 17: 2 }, verdict: 'warning',
    what: 'the slot may ask for WAL that is gone already, and be lost' },
  // 17.6, 16.10, 15.14, 14.19: commit d87d07b7 on re-distributed invalidations; what came before lost changes of a table that was added to
  // a publication while transactions wrote to it, its first mending (17.5, 16.9, 15.13, 14.18) made decoding stop at "invalid memory
  // alloc request size": https://www.postgresql.org/message-id/CAA4eK1JQ2UQEbKdWUa0ozh3NdJFMJXfAKRW-vFrC3JqKxmx1FQ@mail.gmail.com
  { mendedIn: { 14: 19, 15: 14, 16: 10, 17: 6 }, verdict: 'warning',
    what: 'changes of definitions beside long transactions may stop the decoding of the WAL, or leave out rows of a table just published' },
]

/** Of 2026-08-13. An older minor without any of those faults is fine. */
const newest: Readonly<Record<number, number>> = { 14: 24, 15: 19, 16: 15, 17: 11, 18: 6 }

const oldestMajor = 14
const newestMajor = 18

/** @param versionNumber as server_version_num: 170006 @param version as server_version: `17.6 (Debian 17.6-1.pgdg12+1)` */
export function releaseFindings(versionNumber: number, version: string): Finding[] {
  const [major, minor] = [Math.trunc(versionNumber / 10_000), versionNumber % 10_000]
  if (major < oldestMajor)
    return [
      failure('postgres-version', `this is Postgres ${version}; Tidegate needs ${oldestMajor} or later`, null, {
        code: 'VERSION_UNSUPPORTED',
      }),
    ]
  if (major > newestMajor)
    return [
      warning(
        'postgres-version',
        `this is Postgres ${version}; this release was tested with ${oldestMajor} to ${newestMajor}`,
        shell('npm install tidegate@latest'),
      ),
    ]
  return [ok('postgres-version', `this is Postgres ${version}`), minorFinding(major, minor, version)]
}

function minorFinding(major: number, minor: number, version: string): Finding {
  const latest = newest[major]!
  const found = faults.filter(({ mendedIn }) => minor < (mendedIn[major] ?? 0))
  if (found.length === 0) {
    const more = minor < latest ? `; the newest known to this release is ${major}.${latest}` : ''
    return ok('postgres-minor', `no fault of ${major}.${minor} is known to concern Tidegate${more}`)
  }
  const reason = `in ${major}.${minor} ${found.map(({ what }) => what).join('; ')}: upgrade to ${major}.${latest}`
  const judge = found.some(({ verdict }) => verdict === 'failure') ? failure : warning
  return judge('postgres-minor', reason, upgrade(major, version))
}

/** Of what is packaged here, by what the version says of itself. */
function upgrade(major: number, version: string): Remedy | null {
  if (!/\b(Debian|Ubuntu)\b/.test(version)) return null
  return shell(
    `sudo apt-get update\nsudo apt-get install --only-upgrade postgresql-${major}`,
    'which restarts Postgres; on a managed one, choose the newer minor there',
  )
}
