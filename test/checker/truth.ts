// What really happened: every commit in order, with old and new rows, read from a slot of the checker's own with
// test_decoding. The commits' positions come from a second slot, because test_decoding tells where a commit's record ends
// and Tidegate's positions where it begins.
import pg from 'pg'
import type { Json, JsonRow } from '../../src/protocol/messages.ts'
import { type CheckedQuery, type Lookup, nameOf, policies, project, type TableName, tableNames } from './world.ts'

export interface TruthCommit {
  readonly lsn: bigint
  /** Milliseconds since 1970. */
  readonly at: number
  readonly truncated: ReadonlySet<TableName>
  /** By table and the row's name: what stood there before and after. `before` is null where a TRUNCATE of the same
   *  commit had taken it away already. */
  readonly touched: ReadonlyMap<TableName, ReadonlyMap<string, Ends>>
  /** Raw changes. */
  readonly size: number
  /** At least as many as the messages of the replication protocol take for it. */
  readonly bytes: number
}

export interface Ends {
  readonly before: JsonRow | null
  readonly after: JsonRow | null
}

interface Version {
  readonly lsn: bigint
  readonly row: JsonRow | null
}

interface OpenCommit {
  readonly xid: string
  size: number
  bytes: number
  readonly truncated: Set<TableName>
  readonly touched: Map<TableName, Map<string, { before: JsonRow | null; after: JsonRow | null }>>
}

export class Truth {
  readonly #url: string
  #client: pg.Client
  readonly #versions = new Map<TableName, Map<string, Version[]>>(tableNames.map(table => [table, new Map()]))
  readonly #places = new Map<string, { lsn: bigint; at: number }>()
  /** Transactions taken in: after a crash of the server its slots step back, and tell some again. One entry for each. */
  readonly #taken = new Set<string>()
  /** In order. */
  #commits: TruthCommit[] = []
  readonly #byLsn = new Map<bigint, TruthCommit>()
  count = 0
  /** Commits that a slot told again. */
  repeated = 0

  private constructor(url: string, client: pg.Client) {
    this.#url = url
    this.#client = client
  }

  /** Begins to listen, before the first row is written. @param url of a superuser */
  static async begin(url: string): Promise<Truth> {
    const client = await connected(url)
    await client.query(`CREATE PUBLICATION checker FOR TABLE ${tableNames.join(', ')}`)
    for (const [slot, plugin] of [
      ['checker_rows', 'test_decoding'],
      ['checker_places', 'pgoutput'],
    ]) {
      await client.query('SELECT pg_create_logical_replication_slot($1, $2)', [
        `${slot}_${await suffixOf(client)}`,
        plugin,
      ])
    }
    return new Truth(url, client)
  }

  async end(): Promise<void> {
    await this.#reconnect()
    for (const slot of ['checker_rows', 'checker_places']) {
      await this.#client.query('SELECT pg_drop_replication_slot($1)', [`${slot}_${await suffixOf(this.#client)}`])
    }
    await this.#client.end()
  }

  get commits(): readonly TruthCommit[] {
    return this.#commits
  }

  /** Takes in every commit that has ended. The server does not crash meanwhile. */
  async read(): Promise<void> {
    await this.#reconnect()
    const name = await suffixOf(this.#client)
    const rows = await this.#client.query<{ data: string }>(
      `SELECT data FROM pg_logical_slot_get_changes($1, NULL, NULL, 'include-xids', '1', 'skip-empty-xacts', '1')`,
      [`checker_rows_${name}`],
    )
    const places = await this.#client.query<{ begin: Buffer }>(
      `SELECT substring(data FROM 1 FOR 21) AS begin FROM pg_logical_slot_get_binary_changes($1, NULL, NULL,
         'proto_version', '1', 'publication_names', 'checker') WHERE get_byte(data, 0) = 66`,
      [`checker_places_${name}`],
    )
    // Begin: 'B', int64 LSN of the commit record, int64 microseconds since 2000, int32 xid.
    for (const { begin } of places.rows) {
      const at = Number(begin.readBigInt64BE(9) / 1000n) + 946_684_800_000
      const xid = String(begin.readUInt32BE(17))
      if (!this.#taken.has(xid)) this.#places.set(xid, { lsn: begin.readBigUInt64BE(1), at })
    }
    let open: OpenCommit | null = null
    for (const { data } of rows.rows) {
      if (data.startsWith('BEGIN')) {
        const xid = data.slice(6)
        if (this.#taken.has(xid)) this.repeated += 1
        else open = { xid, size: 0, bytes: 0, truncated: new Set(), touched: new Map() }
      } else if (open === null) continue
      else if (data.startsWith('COMMIT')) {
        this.#close(open)
        open = null
      } else if (data.startsWith('table public.')) this.#take(open, data)
    }
  }

  /** The server may have crashed since. */
  async #reconnect(): Promise<void> {
    try {
      await this.#client.query('SELECT 1')
    } catch {
      await this.#client.end().catch(() => {})
      this.#client = await connected(this.#url)
    }
  }

  /** What stood under this name at the position. */
  at(table: TableName, name: string, lsn: bigint): JsonRow | null {
    const versions = this.#versions.get(table)!.get(name)
    if (versions === undefined) return null
    for (let i = versions.length - 1; i >= 0; i--) if (versions[i]!.lsn <= lsn) return versions[i]!.row
    return null
  }

  /** Whether the user may see this row, by the policies' inputs at the position. */
  allows(query: CheckedQuery, user: string, row: JsonRow, lsn: bigint): boolean {
    const lookup: Lookup = (table, name) => this.at(table, name, lsn)
    return query.matches(row) && policies[query.table].allows(row, user, lookup)
  }

  /** What the query shows under this name at the position; null when nothing. */
  shown(query: CheckedQuery, user: string, name: string, lsn: bigint): JsonRow | null {
    const row = this.at(query.table, name, lsn)
    return row !== null && this.allows(query, user, row, lsn) ? project(query, row) : null
  }

  /** All that the query shows at the position, by name. */
  state(query: CheckedQuery, user: string, lsn: bigint): Map<string, JsonRow> {
    const state = new Map<string, JsonRow>()
    for (const name of this.#versions.get(query.table)!.keys()) {
      const row = this.shown(query, user, name, lsn)
      if (row !== null) state.set(name, row)
    }
    return state
  }

  /** At how many of the positions from `from` to `to` the user may see this row: all, some, or none. */
  allowedWithin(query: CheckedQuery, user: string, row: JsonRow, from: bigint, to: bigint): 'all' | 'some' | 'none' {
    const moments = new Set([from])
    for (const [table, name] of policies[query.table].decidedBy(row, user)) {
      for (const { lsn } of this.#versions.get(table)!.get(name) ?? []) if (lsn > from && lsn <= to) moments.add(lsn)
    }
    const answers = new Set([...moments].map(lsn => this.allows(query, user, row, lsn)))
    return answers.size === 2 ? 'some' : answers.has(true) ? 'all' : 'none'
  }

  /** Whether the user could see exactly this, under this name, at some position from `from` to `to`. */
  wasShownWithin(
    query: CheckedQuery,
    user: string,
    name: string,
    is: (row: JsonRow) => boolean,
    from: bigint,
    to: bigint,
  ): boolean {
    const versions = this.#versions.get(query.table)!.get(name) ?? []
    for (const [i, { lsn, row }] of versions.entries()) {
      const until = versions[i + 1]?.lsn ?? to + 1n
      if (row === null || lsn > to || until <= from || !is(project(query, row))) continue
      const last = until - 1n < to ? until - 1n : to
      if (this.allowedWithin(query, user, row, lsn > from ? lsn : from, last) !== 'none') return true
    }
    return false
  }

  commit(lsn: bigint): TruthCommit | undefined {
    return this.#byLsn.get(lsn)
  }

  /** Commits after `from`, up to and with `to`. */
  between(from: bigint, to: bigint): TruthCommit[] {
    return this.#commits.slice(this.#firstAfter(from), this.#firstAfter(to))
  }

  /** Index of the first commit after the position. */
  #firstAfter(lsn: bigint): number {
    let low = 0
    let high = this.#commits.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#commits[middle]!.lsn <= lsn) low = middle + 1
      else high = middle
    }
    return low
  }

  /** Forgets what lies before the position, but for the state at it. */
  prune(lsn: bigint): void {
    for (const gone of this.#commits.splice(0, this.#firstAfter(lsn))) this.#byLsn.delete(gone.lsn)
    for (const rows of this.#versions.values()) {
      for (const [name, versions] of rows) {
        let first = 0
        while (first + 1 < versions.length && versions[first + 1]!.lsn <= lsn) first++
        versions.splice(0, first)
        if (versions.length === 1 && versions[0]!.row === null && versions[0]!.lsn <= lsn) rows.delete(name)
      }
    }
  }

  /** What the commits did under this name and to what decides about it, for whoever reads the report of a failure. */
  story(query: CheckedQuery, user: string, name: string): string[] {
    const lines: string[] = []
    const deciding = new Set<string>()
    for (const commit of this.#commits) {
      const ends = commit.touched.get(query.table)?.get(name)
      for (const row of [ends?.before, ends?.after, this.at(query.table, name, commit.lsn)]) {
        if (row) for (const pair of policies[query.table].decidedBy(row, user)) deciding.add(pair.join(' '))
      }
    }
    for (const commit of this.#commits) {
      const ends = commit.touched.get(query.table)?.get(name)
      const touched: string[] = []
      if (ends !== undefined)
        touched.push(`${query.table} ${name}: ${JSON.stringify(ends.before)} -> ${JSON.stringify(ends.after)}`)
      for (const input of policies[query.table].inputs) {
        for (const [row, { before, after }] of commit.touched.get(input) ?? []) {
          if (deciding.has(`${input} ${row}`))
            touched.push(`${input} ${row}: ${JSON.stringify(before)} -> ${JSON.stringify(after)}`)
        }
      }
      for (const table of commit.truncated)
        if (table === query.table || policies[query.table].inputs.includes(table)) touched.push(`TRUNCATE ${table}`)
      if (touched.length > 0) lines.push(`${commit.lsn.toString(16)} ${touched.join('; ')}`.slice(0, 600))
    }
    return lines
  }

  #close({ xid, truncated, touched, size, bytes }: OpenCommit): void {
    this.#taken.add(xid)
    if (touched.size === 0) return
    const place = this.#places.get(xid)
    if (place === undefined) throw new Error(`transaction ${xid} has no position`)
    this.#places.delete(xid)
    const last = this.#commits.at(-1)
    if (last !== undefined && last.lsn >= place.lsn) throw new Error(`commit ${place.lsn} comes after ${last.lsn}`)
    const commit: TruthCommit = { ...place, truncated, touched, size, bytes }
    this.#commits.push(commit)
    this.#byLsn.set(commit.lsn, commit)
    this.count += 1
    for (const [table, rows] of touched) {
      for (const [name, { after }] of rows) this.#append(table, name, { lsn: place.lsn, row: after })
    }
    for (const table of truncated) {
      for (const [name, versions] of this.#versions.get(table)!) {
        if (versions.at(-1)!.row !== null && !touched.get(table)?.has(name))
          versions.push({ lsn: place.lsn, row: null })
      }
    }
  }

  #append(table: TableName, name: string, version: Version): void {
    const rows = this.#versions.get(table)!
    const versions = rows.get(name)
    if (versions === undefined) rows.set(name, [version])
    else versions.push(version)
  }

  #take(open: OpenCommit, line: string): void {
    open.size += 1
    open.bytes += line.length
    const truncation = /^table (.+): TRUNCATE: /.exec(line)
    if (truncation !== null) {
      for (const table of truncation[1]!.split(', ').map(text => text.replace('public.', '') as TableName)) {
        open.truncated.add(table)
        open.touched.set(table, new Map())
      }
      return
    }
    const match = /^table public\.(\w+): (INSERT|UPDATE|DELETE): /.exec(line)!
    const table = match[1] as TableName
    const rest = line.slice(match[0].length)
    const split = rest.indexOf(' new-tuple: ')
    if (match[2] === 'INSERT') this.#move(open, table, null, tupleOf(rest))
    else if (match[2] === 'DELETE') this.#move(open, table, tupleOf(rest), null)
    else if (!rest.startsWith('old-key: ')) throw new Error(`an update without its old row: ${line.slice(0, 200)}`)
    else {
      const old = tupleOf(rest.slice('old-key: '.length, split))
      this.#move(open, table, old, { ...tupleOf(rest.slice(split + ' new-tuple: '.length), old) })
    }
  }

  #move(open: OpenCommit, table: TableName, old: JsonRow | null, next: JsonRow | null): void {
    if (!open.touched.has(table)) open.touched.set(table, new Map())
    const rows = open.touched.get(table)!
    const ends = (row: JsonRow): { before: JsonRow | null; after: JsonRow | null } => {
      const name = nameOf(table, row)
      let found = rows.get(name)
      if (found === undefined) {
        const versions = this.#versions.get(table)!.get(name)
        const before = open.truncated.has(table) ? null : (versions?.at(-1)?.row ?? null)
        found = { before, after: before }
        rows.set(name, found)
      }
      return found
    }
    if (old !== null) {
      if (ends(old).after === null) throw new Error(`${table} ${nameOf(table, old)} was changed and is not there`)
      ends(old).after = null
    }
    if (next !== null) ends(next).after = complete(table, next)
  }
}

const columnsOf: Readonly<Record<TableName, readonly string[]>> = {
  rooms: ['id', 'name'],
  members: ['room_id', 'user_id', 'role'],
  bans: ['room_id', 'user_id'],
  messages: ['id', 'room_id', 'is_public', 'body'],
  notes: ['id', 'room_id', 'author', 'body'],
}

/** In the order of the table's columns, as to_jsonb and the wire have them. */
const complete = (table: TableName, row: JsonRow): JsonRow =>
  Object.fromEntries(columnsOf[table].map(column => [column, row[column] ?? null]))

/** `id[integer]:1 body[text]:'it''s'`. @param old fills what an update left where it was */
function tupleOf(text: string, old: JsonRow = {}): JsonRow {
  const row: JsonRow = {}
  const pattern = /(\w+)\[([^\]]+)\]:('(?:[^']|'')*'|[^\s]+) ?/y
  for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) {
    const [, column, type, value] = match as unknown as [string, string, string, string]
    row[column] = value === 'unchanged-toast-datum' ? old[column]! : jsonOf(type, value)
  }
  return row
}

function jsonOf(type: string, text: string): Json {
  if (text === 'null') return null
  if (type === 'integer') return Number(text)
  if (type === 'boolean') return text === 'true'
  return text.slice(1, -1).replaceAll(`''`, `'`)
}

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  return client
}

async function suffixOf(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ name: string }>('SELECT right(current_database(), 10) AS name')
  return rows[0]!.name
}
