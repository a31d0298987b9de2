// A database that was migrated, and what comes through its WAL in channels.
import { migrate } from '../../../../src/cli/commands/migrate.ts'
import type { Draft } from '../../../../src/server/channels/message.ts'
import { WalMessages } from '../../../../src/server/channels/sql/wal-messages.ts'
import type { Commit } from '../../../../src/server/decode/change.ts'
import type { TransactionOptions } from '../../../../src/server/decode/transaction.ts'
import { TestDatabase } from '../../../support/postgres.ts'
import { Capture } from '../../decode/capture.ts'

const silent = { write: () => true }

export class ChannelDatabase {
  readonly database: TestDatabase
  readonly capture: Capture
  readonly #messages = new WalMessages()

  private constructor(database: TestDatabase, capture: Capture) {
    this.database = database
    this.capture = capture
  }

  /** @param schema what is there before `migrate` */
  static async create(schema = ''): Promise<ChannelDatabase> {
    const database = await TestDatabase.create()
    if (schema !== '') await database.query(schema)
    await migrate({ databaseUrl: database.url, adminUrl: database.url, name: 'tidegate' }, silent)
    return new ChannelDatabase(database, await Capture.create(database.url))
  }

  /** Runs the statements, each as one query: a transaction of its own, or parts of one that they begin.
   *  @returns the commits that came of them */
  async commits(statements: readonly string[], options?: TransactionOptions): Promise<Commit[]> {
    for (const statement of statements) await this.database.query(statement)
    return await this.capture.commits(options)
  }

  async sent(...statements: string[]): Promise<Draft[]> {
    return this.draftsOf(await this.commits(statements))
  }

  draftsOf(commits: readonly Commit[]): Draft[] {
    return commits.flatMap(commit => [...this.#messages.of(commit, 'epoch')])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.capture[Symbol.asyncDispose]()
    await this.database[Symbol.asyncDispose]()
  }
}

export const payloadOf = (draft: Draft): unknown => JSON.parse(draft.payload)
