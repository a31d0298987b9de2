// What the doctor says: of each prerequisite whether it holds, why, and what to run if it does not.

/** `ok`; `warning`: it works, and may fail one night; `failure`: it does not work, or something may be lost; `unknown`: it could not be
 *  looked at, and the reason says why. */
export type Verdict = 'ok' | 'warning' | 'failure' | 'unknown'

export type CheckArea = 'postgres' | 'policies' | 'redis' | 'configuration' | 'machine'

export interface Remedy {
  /** `sql`: run it in the database, as a superuser or who owns what it names; `shell`: type it; `setting`: change an option of Tidegate; `redis`: with redis-cli. */
  readonly kind: 'sql' | 'shell' | 'setting' | 'redis'
  /** Exact, to be copied: with the names and numbers of this database. Several commands stand on lines of their own. */
  readonly text: string
  /** What must follow: `restart Postgres`. Null: nothing. */
  readonly then: string | null
}

export interface Finding {
  /** Stable, for scripts: `wal-level`. */
  readonly check: string
  readonly area: CheckArea
  /** What it is about where a check looks at several: `public.messages`, a policy's name. */
  readonly about: string | null
  readonly verdict: Verdict
  /** A sentence with the values found: `wal_level is replica`. */
  readonly reason: string
  /** Null where nothing need be done. */
  readonly remedy: Remedy | null
  /** The code by which a start refuses or warns because of it (docs/errors.md); null: only the doctor looks. */
  readonly code: string | null
}

/** What `tidegate doctor --json` prints. */
export interface Diagnosis {
  readonly release: string
  /** ISO 8601. */
  readonly at: string
  /** The worst of all. */
  readonly verdict: Verdict
  readonly findings: readonly Finding[]
}
