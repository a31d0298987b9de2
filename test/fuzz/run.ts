// What every actor of a run is given.
import type { Random } from '../checker/random.ts'
import type { TestDatabase } from '../support/postgres.ts'
import type { Oracle } from './oracle.ts'

export interface Run {
  readonly url: string
  readonly port: number
  readonly database: TestDatabase
  readonly oracle: Oracle
  /** A member of rooms 1 and 2; everybody who asks wrongly asks as this reader. */
  readonly ada: string
  readonly token: string
  /** Of a reader in room 3 only. */
  readonly foreignToken: string
  /** True once the actors should come to an end. */
  isOver(): boolean
}

export type Actor = (run: Run, random: Random) => Promise<void>
