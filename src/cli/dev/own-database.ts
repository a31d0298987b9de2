// The database of `tidegate dev` when nobody gave one: an embedded Postgres that keeps its rows in .tidegate/.
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import pg from 'pg'
import { LocalPostgres } from '../local-postgres.ts'
import { postgresBinaries } from './fetched-postgres.ts'

export interface OwnDatabase {
  /** As a LOGIN REPLICATION role without further rights, as a server should run. */
  readonly databaseUrl: string
  /** As the superuser that owns the tables. */
  readonly ownerUrl: string
  /** Where the rows are; null: a temporary folder, gone after `stop`. */
  readonly folder: string | null
  stop(): Promise<void>
}

/** @param folder kept from run to run: `.tidegate` */
export async function startOwnDatabase(folder: string, onProgress: (line: string) => void): Promise<OwnDatabase> {
  const kept = (await canBeReached(dirname(folder))) ? folder : null
  const dataDir = kept === null ? null : join(kept, 'postgres')
  const binDir = await postgresBinaries(folder, onProgress)
  const isNew = dataDir === null || !(await exists(join(dataDir, 'PG_VERSION')))
  onProgress(isNew ? 'making a Postgres database (once)' : 'starting Postgres')
  const password = kept === null ? newPassword() : await keptPassword(kept)
  const server = await LocalPostgres.create({
    binDir,
    ...(dataDir === null ? {} : { dataDir }),
    password,
    detached: true,
    // Without a limit a slot that nobody reads fills the disk.
    settings: { max_wal_senders: '10', max_replication_slots: '10', max_slot_wal_keep_size: '2GB' },
  })
  try {
    if (isNew) onProgress('starting Postgres')
    await server.start()
    return {
      databaseUrl: await ensureLogin(server.url),
      ownerUrl: server.url,
      folder: kept,
      stop: () => server.stop(),
    }
  } catch (error) {
    await server.stop()
    throw error
  }
}

/** A new password for each run: nobody else needs it. */
async function ensureLogin(ownerUrl: string): Promise<string> {
  const client = new pg.Client({ connectionString: ownerUrl })
  await client.connect()
  try {
    const password = newPassword()
    const { rows } = await client.query<{ found: boolean }>(`SELECT to_regrole('tidegate') IS NOT NULL AS found`)
    const verb = rows[0]?.found === true ? 'ALTER' : 'CREATE'
    await client.query(`${verb} ROLE tidegate LOGIN REPLICATION PASSWORD ${client.escapeLiteral(password)}`)
    const url = new URL(ownerUrl)
    url.username = 'tidegate'
    url.password = password
    return url.href
  } finally {
    await client.end()
  }
}

/** The superuser's: it is set when the cluster is made, and other users of the machine can reach its port. */
async function keptPassword(folder: string): Promise<string> {
  const path = join(folder, 'password')
  const kept = await readFile(path, 'utf8').catch(() => null)
  if (kept !== null) return kept
  await mkdir(folder, { recursive: true })
  const password = newPassword()
  await writeFile(path, password, { mode: 0o600 })
  return password
}

const newPassword = (): string => randomBytes(12).toString('hex')

/** As root, Postgres runs as another user, who must be able to enter every folder above its data. */
async function canBeReached(folder: string): Promise<boolean> {
  if (process.getuid?.() !== 0) return true
  for (let path = folder; ; path = dirname(path)) {
    if (((await stat(path)).mode & 0o001) === 0) return false
    if (dirname(path) === path) return true
  }
}

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  )
