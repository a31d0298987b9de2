// A standby of a LocalPostgres that keeps its slots, made as pg_basebackup makes one: the package does not bring that.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chown, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'

export interface StandbyOptions {
  /** Where it connects to, if not to the primary itself: over a link, say. */
  readonly primaryUrl?: string
  /** The physical slot that it streams from; made here. */
  readonly slotName: string
}

export class Standby {
  readonly server: LocalPostgres

  private constructor(server: LocalPostgres) {
    this.server = server
  }

  static async of(primary: LocalPostgres, { slotName, primaryUrl = primary.url }: StandbyOptions): Promise<Standby> {
    const dataDir = await mkdtemp(join(tmpdir(), 'tidegate-standby-'))
    const client = new pg.Client({ connectionString: primary.url })
    await client.connect()
    try {
      await client.query('SELECT pg_create_physical_replication_slot($1, true)', [slotName])
      await client.query("SELECT pg_backup_start('standby', true)")
      await copy(primary.dataDir, dataDir)
      const { rows } = await client.query<{ labelfile: string }>('SELECT labelfile FROM pg_backup_stop(false)')
      await writeFile(join(dataDir, 'backup_label'), rows[0]!.labelfile)
      await writeFile(join(dataDir, 'standby.signal'), '')
    } finally {
      await client.end()
    }
    const { uid, gid } = await stat(primary.dataDir)
    for (const file of ['backup_label', 'standby.signal']) await chown(join(dataDir, file), uid, gid)
    const { hostname, port, username, password } = new URL(primaryUrl)
    const server = await LocalPostgres.create({
      dataDir,
      settings: {
        fsync: 'off',
        // The database is for the synchronization of slots, which asks the primary for them.
        primary_conninfo: `host=${hostname} port=${port} user=${username} password=${password} dbname=postgres`,
        primary_slot_name: slotName,
        hot_standby_feedback: 'on',
        wal_receiver_status_interval: '1s',
      },
    })
    const standby = new Standby(server)
    try {
      await server.start()
    } catch (error) {
      await standby[Symbol.asyncDispose]()
      throw error
    }
    return standby
  }

  async query<R extends pg.QueryResultRow>(sql: string): Promise<R[]> {
    const client = new pg.Client({ connectionString: this.server.url })
    client.on('error', () => {})
    await client.connect()
    try {
      return (await client.query<R>(sql)).rows
    } finally {
      await client.end()
    }
  }

  /** From here on it keeps the primary's failover slots. */
  async keepSlots(): Promise<void> {
    await this.query('ALTER SYSTEM SET sync_replication_slots = on')
    await this.query('SELECT pg_reload_conf()')
  }

  /** Resolves when it takes writes. */
  async promote(): Promise<void> {
    await this.query('SELECT pg_promote(true, 60)')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.halt('immediate')
    await rm(this.server.dataDir, { recursive: true, force: true })
  }
}

/** Owners and modes as they are; without what belongs to the running server, and its slots. */
async function copy(from: string, to: string): Promise<void> {
  const left = ['postmaster.pid', 'postmaster.opts', 'pg_replslot/*', 'pg_stat_tmp/*', 'pg_notify/*']
  const script = `tar -C "$0" ${left.map(name => `--exclude='./${name}'`).join(' ')} -cf - . | tar -C "$1" -xpf -`
  const child = spawn('sh', ['-c', script, from, to], { stdio: ['ignore', 'ignore', 'pipe'] })
  let output = ''
  child.stderr.on('data', data => (output += data))
  const [code] = (await once(child, 'exit')) as [number]
  if (code !== 0) throw new Error(`the cluster could not be copied: ${output}`)
}
