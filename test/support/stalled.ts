// Commits that are in the WAL, and so in the stream, but that no SELECT can see: their sessions wait for a standby that never
// comes. What is rare and short on a busy server then lasts until the test lets go.
import pg from 'pg'

export class Stalled {
  readonly #url: string
  readonly #admin: pg.Client
  #waiting: Promise<unknown>[] = []
  #clients: pg.Client[] = []

  private constructor(url: string, admin: pg.Client) {
    this.#url = url
    this.#admin = admin
  }

  /** From here on, commits wait. @param url of a superuser, of a server that nobody else uses */
  static async begin(url: string): Promise<Stalled> {
    const admin = new pg.Client({ connectionString: url })
    admin.on('error', () => {})
    await admin.connect()
    await admin.query('SET synchronous_commit = local')
    await admin.query(`ALTER SYSTEM SET synchronous_standby_names = 'ghost'`)
    await admin.query('SELECT pg_reload_conf()')
    await until(async () => {
      const { rows } = await admin.query(`SELECT current_setting('synchronous_standby_names') AS names`)
      return rows[0].names === 'ghost'
    })
    const stalled = new Stalled(url, admin)
    await stalled.#untilCommitsWait()
    return stalled
  }

  /** Runs the statements as one transaction and resolves when its commit is in the WAL and waits. It keeps its locks. */
  async commit(...statements: readonly string[]): Promise<void> {
    const client = new pg.Client({ connectionString: this.#url })
    client.on('error', () => {})
    await client.connect()
    this.#clients.push(client)
    const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
    let failure: unknown = null
    const done = client.query(`BEGIN; ${statements.join('; ')}; COMMIT`)
    this.#waiting.push(done)
    done.catch(error => {
      failure = error
    })
    await until(async () => {
      if (failure !== null) throw failure
      return this.#waits(rows[0]!.pid)
    })
  }

  /** The sessions learn of the setting at once, but whether commits wait is decided by the checkpointer, when it next looks:
   *  until then they go through. */
  async #untilCommitsWait(): Promise<void> {
    const probe = new pg.Client({ connectionString: this.#url })
    await probe.connect()
    const { rows } = await probe.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
    const { pid } = rows[0]!
    for (let waits = false; !waits; ) {
      let isOver = false
      const done = probe.query(`SELECT pg_logical_emit_message(true, 'probe', '')`).then(() => {
        isOver = true
      })
      await until(async () => {
        waits = await this.#waits(pid)
        return waits || isOver
      })
      // A cancelled wait lets the commit through; it is in the WAL as it is.
      if (waits) await this.#admin.query('SELECT pg_cancel_backend($1)', [pid])
      await done
    }
    await probe.end()
  }

  async #waits(pid: number): Promise<boolean> {
    const waiting = await this.#admin.query(
      `SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'`,
      [pid],
    )
    return waiting.rowCount === 1
  }

  /** Lets every commit through and resolves when all are visible. */
  async release(): Promise<void> {
    await this.#admin.query('ALTER SYSTEM RESET synchronous_standby_names')
    await this.#admin.query('SELECT pg_reload_conf()')
    await Promise.all(this.#waiting)
    this.#waiting = []
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release().catch(() => {})
    for (const client of this.#clients) await client.end().catch(() => {})
    await this.#admin.end()
  }
}

/** Resolves when the condition holds. @throws after the time, or what the condition throws */
export async function until(condition: () => boolean | Promise<boolean>, timeoutMs = 20_000): Promise<void> {
  const deadline = Date.now() + timeoutMs
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`it did not become so: ${condition}`)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}
