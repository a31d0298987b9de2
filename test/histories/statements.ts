// Draws what befalls a world: rows, memberships and groups that come, change, move and go. Every statement stands by itself and
// violates no constraint whatever the tables hold, so that any of them may be left out.
import type { Random } from '../checker/random.ts'
import type { Statement, Transaction } from './history.ts'
import { kinds, type Level, type Membership, roles, type World } from './world.ts'

export class StatementDraw {
  readonly #random: Random
  readonly #world: World

  constructor(random: Random, world: World) {
    this.#random = random
    this.#world = world
  }

  /** Rows to begin with. */
  rows(): string[] {
    const { levels, memberships, bans, hasProfiles, subs } = this.#world
    const rows: string[] = []
    for (let level = levels.length - 1; level >= 0; level--) {
      const { ids } = levels[level]!
      for (let id = 1; id <= ids; id++) if (level > 0 || id <= 8) rows.push(this.#insertLevel(level, id))
    }
    for (const membership of memberships) for (let i = 0; i < 8; i++) rows.push(this.#grant(membership))
    if (bans !== null) for (let i = 0; i < 2; i++) rows.push(this.#grant(bans))
    if (hasProfiles)
      for (const sub of subs) rows.push(`INSERT INTO profiles VALUES ('${sub}', ${this.#int(4)}, ${this.#text(roles)})`)
    return rows
  }

  transaction(): Transaction {
    const random = this.#random
    if (random.once(55)) return [this.#truncate()]
    const count = random.pick([1, 1, 1, 2, 2, 3, 5])
    return Array.from({ length: count }, () => this.#statement())
  }

  #statement(): Statement {
    const random = this.#random
    const { bans, hasProfiles, levels } = this.#world
    const draws: (() => Statement)[] = [
      () => ['insert', this.#insertLevel(0, this.#id(0))],
      () => this.#update(),
      () => this.#update(),
      () => ['delete', `DELETE FROM items WHERE id = ${this.#id(0)}`],
      () => this.#move(0),
      () => this.#move(0),
      () => this.#rowKey(),
      () => this.#rowKey(),
      () => ['grant', this.#grant(this.#membership())],
      () => ['grant', this.#grant(this.#membership())],
      () => ['grant of several', this.#grants(this.#membership())],
      () => this.#revoke(),
      () => this.#revoke(),
      () => this.#role(),
      () => this.#membershipKey(this.#membership()),
      () => this.#membershipKey(this.#membership()),
      () => this.#groupFlag(),
      () => this.#goes(),
      () => this.#changesKey(),
      () => this.#group(),
      () => this.#toggled(),
      () => this.#toggled(),
      () => this.#rolledBack(),
    ]
    if (levels.length > 2) draws.push(() => this.#move(1 + random.below(levels.length - 2)))
    if (levels.length > 2) draws.push(() => this.#move(1 + random.below(levels.length - 2)))
    if (bans !== null)
      draws.push(
        () => this.#ban(bans),
        () => this.#ban(bans),
      )
    if (hasProfiles) draws.push(() => this.#profile())
    return random.pick(draws)()
  }

  #insertLevel(level: number, id: number): string {
    const { table, up } = this.#world.levels[level]!
    const values = [
      String(id),
      ...(up === null ? [] : [String(this.#id(level + 1))]),
      this.#user(),
      this.#boolean(),
      this.#text(kinds),
      ...(level === 0 ? [this.#body()] : []),
    ]
    const guard = up === null || up === 'none' ? '' : this.#whereThere(level + 1, values[1]!)
    const conflict = level === 0 && this.#random.once(2) ? 'DO UPDATE SET body = excluded.body' : 'DO NOTHING'
    const on = level === 0 ? `ON CONFLICT (id) ${conflict}` : 'ON CONFLICT DO NOTHING'
    return `INSERT INTO ${table} SELECT ${values.join(', ')}${guard} ${on}`
  }

  #update(): Statement {
    const where = `WHERE id = ${this.#id(0)}`
    return this.#random.pick<() => Statement>([
      () => ['update', `UPDATE items SET body = ${this.#body()} ${where}`],
      () => ['update', `UPDATE items SET body = ${this.#body()} WHERE id > ${this.#id(0)}`],
      () => ['update without a difference', `UPDATE items SET body = body ${where}`],
      () => ['update of what decides', `UPDATE items SET open = ${this.#boolean()} ${where}`],
      () => ['update of what decides', `UPDATE items SET kind = ${this.#text(kinds)}, body = ${this.#body()} ${where}`],
      () => ['update of what decides', `UPDATE items SET owner = ${this.#user()} ${where}`],
    ])()
  }

  /** To another group. */
  #move(level: number): Statement {
    const { table, up } = this.#world.levels[level]!
    if (up === null) return this.#update()
    const to = this.#id(level + 1)
    const guard = up === 'none' ? '' : ` AND ${this.#isThere(level + 1, to)}`
    const some = this.#random.pick([
      `id = ${this.#id(level)}`,
      `id = ${this.#id(level)}`,
      `up = ${this.#id(level + 1)}`,
    ])
    const value = this.#random.once(9) ? 'NULL' : String(to)
    const kind = level === 0 ? 'move of rows' : 'change in the middle of a chain'
    return [kind, `UPDATE ${table} SET up = ${value} WHERE ${some}${guard}`]
  }

  #rowKey(): Statement {
    const to = this.#id(0)
    return ['key of a row', `UPDATE items SET id = ${to} WHERE id = ${this.#id(0)} AND ${this.#isFree('items', to)}`]
  }

  #grant({ table, level, reference, surrogate }: Membership): string {
    const group = String(this.#id(level))
    const isBan = table === 'bans'
    const values = [
      ...(surrogate ? [String(1 + this.#random.below(40))] : []),
      isBan && this.#random.once(8) ? 'NULL' : group,
      isBan ? this.#user() : this.#sub(),
      this.#text(roles),
      this.#random.pick(['NULL', 'false', 'false', 'true']),
      this.#until(),
    ]
    const guard = reference === 'none' ? '' : this.#whereThere(level, group)
    return `INSERT INTO ${table} SELECT ${values.join(', ')}${guard} ON CONFLICT DO NOTHING`
  }

  /** A user into every group that is there, or everybody into one. */
  #grants({ table, level, reference, surrogate }: Membership): string {
    const random = this.#random
    const rest = `${this.#text(roles)}, ${random.pick(['NULL', 'false'])}, ${this.#until()}`
    const keys = (number: string): string => (surrogate ? `${20 + 5 * random.below(5)} + ${number}, ` : '')
    if (random.once(2)) {
      const groups = this.#world.levels[level]!.table
      return `INSERT INTO ${table} SELECT ${keys('id')}id, ${this.#sub()}, ${rest} FROM ${groups} ON CONFLICT DO NOTHING`
    }
    const group = String(this.#id(level))
    const guard = reference === 'none' ? '' : this.#whereThere(level, group)
    const users = `unnest('{${this.#world.subs.join(',')}}'::uuid[]) WITH ORDINALITY AS u (usr, i)`
    return `INSERT INTO ${table} SELECT ${keys('i')}${group}, usr, ${rest} FROM ${users}${guard} ON CONFLICT DO NOTHING`
  }

  #revoke(): Statement {
    const { table, level } = this.#membership()
    const some = this.#random.pick([
      `usr = ${this.#sub()}`,
      `usr = ${this.#sub()} AND grp = ${this.#id(level)}`,
      `usr = ${this.#sub()} AND grp = ${this.#id(level)}`,
      `grp = ${this.#id(level)}`,
      `role = 'banned'`,
    ])
    return ['revocation', `DELETE FROM ${table} WHERE ${some}`]
  }

  #role(): Statement {
    const { table, level } = this.#membership()
    const set = this.#random.pick([
      `role = ${this.#text(roles)}`,
      `muted = ${this.#boolean()}`,
      `until = ${this.#until()}`,
    ])
    const some = this.#random.pick([`usr = ${this.#sub()}`, `grp = ${this.#id(level)}`])
    return ['role of a membership', `UPDATE ${table} SET ${set} WHERE ${some}`]
  }

  /** To another group or another user. Of those without a key of their own one at a time, where nobody stands. */
  #membershipKey({ table, level, reference, surrogate }: Membership): Statement {
    const random = this.#random
    const kind = 'key of a membership'
    const [group, user] = [this.#id(level), this.#sub()]
    if (random.once(2)) {
      const guard = reference === 'none' ? '' : ` AND ${this.#isThere(level, group)}`
      const free = surrogate ? '' : ` AND NOT EXISTS (SELECT FROM ${table} x WHERE x.grp = ${group} AND x.usr = m.usr)`
      const one = `(SELECT x.ctid FROM ${table} x WHERE x.grp <> ${group} AND x.usr = ${user} ORDER BY x.grp LIMIT 1)`
      return [kind, `UPDATE ${table} m SET grp = ${group} WHERE m.ctid = ${one}${free}${guard}`]
    }
    const free = surrogate ? '' : ` AND NOT EXISTS (SELECT FROM ${table} x WHERE x.grp = m.grp AND x.usr = ${user})`
    const one = `(SELECT x.ctid FROM ${table} x WHERE x.grp = ${group} AND x.usr <> ${user} ORDER BY x.usr LIMIT 1)`
    return [kind, `UPDATE ${table} m SET usr = ${user} WHERE m.ctid = ${one}${free}`]
  }

  #ban(bans: Membership): Statement {
    return this.#random.pick<() => Statement>([
      () => ['ban', this.#grant(bans)],
      () => ['ban', this.#grants(bans)],
      () => ['end of a ban', `DELETE FROM bans WHERE usr = ${this.#sub()}`],
      () => ['end of a ban', `DELETE FROM bans WHERE grp = ${this.#id(bans.level)} OR grp IS NULL`],
      () => this.#membershipKey(bans),
    ])()
  }

  #profile(): Statement {
    const set = this.#random.pick([`role = ${this.#text(roles)}`, `team = ${this.#int(4)}`])
    return this.#random.pick<() => Statement>([
      () => ['profile', `UPDATE profiles SET ${set} WHERE id = ${this.#sub()}`],
      () => ['profile', `UPDATE profiles SET ${set} WHERE id = ${this.#sub()}`],
      () => ['profile', `DELETE FROM profiles WHERE id = ${this.#sub()}`],
      () => [
        'profile',
        `INSERT INTO profiles SELECT ${this.#sub()}, ${this.#int(4)}, ${this.#text(roles)} ON CONFLICT DO NOTHING`,
      ],
    ])()
  }

  #groupFlag(): Statement {
    const { table } = this.#upper()
    const set = this.#random.pick([
      `open = ${this.#boolean()}`,
      `owner = ${this.#user()}`,
      `kind = ${this.#text(kinds)}`,
    ])
    return ['columns of a group', `UPDATE ${table} SET ${set} WHERE id = ${this.#idOf(table)}`]
  }

  #goes(): Statement {
    const { table } = this.#upper()
    return [
      this.#cascades(table) ? 'cascade' : 'end or key of a group',
      `DELETE FROM ${table} WHERE id = ${this.#idOf(table)}`,
    ]
  }

  #changesKey(): Statement {
    const { table } = this.#upper()
    const to = this.#idOf(table)
    const kind = this.#cascades(table) ? 'cascade' : 'end or key of a group'
    return [kind, `UPDATE ${table} SET id = ${to} WHERE id = ${this.#idOf(table)} AND ${this.#isFree(table, to)}`]
  }

  #group(): Statement {
    const { level } = this.#upper()
    return ['insert of a group', this.#insertLevel(level, this.#id(level))]
  }

  /** There and back within one transaction. */
  #toggled(): Statement {
    const random = this.#random
    const { table, surrogate, reference, level } = this.#membership()
    const kind = 'toggled in one transaction'
    const user = this.#sub()
    const some = `WHERE usr = ${user}`
    const id = this.#id(0)
    return random.pick<() => Statement>([
      () => [kind, `UPDATE ${table} SET role = 'banned' ${some}; UPDATE ${table} SET role = 'owner' ${some}`],
      () => [kind, `UPDATE ${table} SET muted = NOT muted ${some}; UPDATE ${table} SET muted = NOT muted ${some}`],
      () => [
        kind,
        `UPDATE items SET open = NOT open WHERE id = ${id}; UPDATE items SET open = NOT open WHERE id = ${id}`,
      ],
      () => [kind, `UPDATE items SET up = NULL WHERE id = ${id}; ${this.#move(0)[1]}`],
      () => {
        const group = this.#id(level)
        const guard = reference === 'none' ? '' : ` WHERE ${this.#isThere(level, group)}`
        const again = `INSERT INTO ${table} SELECT ${surrogate ? '7, ' : ''}${group}, ${user}, 'editor', false, NULL${guard} ON CONFLICT DO NOTHING`
        return [kind, `DELETE FROM ${table} WHERE usr = ${user} AND grp = ${group}; ${again}`]
      },
      () => [kind, `${this.#insertLevel(0, id)}; DELETE FROM items WHERE id = ${id}; ${this.#insertLevel(0, id)}`],
    ])()
  }

  #rolledBack(): Statement {
    const [, first] = this.#random.pick([() => this.#revoke(), () => this.#update(), () => this.#move(0)])()
    const second = this.#grant(this.#membership())
    return ['savepoint rolled back', `SAVEPOINT s; ${first}; ${second}; ROLLBACK TO SAVEPOINT s; RELEASE SAVEPOINT s`]
  }

  #truncate(): Statement {
    const { memberships, bans, levels } = this.#world
    const tables = ['items', 'items', memberships[0]!.table, ...(bans === null ? [] : ['bans']), levels[1]!.table]
    return ['truncate', `TRUNCATE ${this.#random.pick(tables)} CASCADE`]
  }

  /** Whether a row that refers to this table goes with it. */
  #cascades(table: string): boolean {
    const { levels, memberships, bans } = this.#world
    const level = levels.findIndex(each => each.table === table)
    const attached = [...memberships, ...(bans === null ? [] : [bans])]
    return (
      levels[level - 1]!.up !== 'none' || attached.some(each => each.level === level && each.reference === 'cascade')
    )
  }

  #membership(): Membership {
    return this.#random.pick(this.#world.memberships)
  }

  /** A table of groups. */
  #upper(): Level & { readonly level: number } {
    const level = 1 + this.#random.below(this.#world.levels.length - 1)
    return { ...this.#world.levels[level]!, level }
  }

  #whereThere(level: number, id: string): string {
    return ` WHERE ${this.#isThere(level, id)}`
  }

  #isThere(level: number, id: number | string): string {
    return `EXISTS (SELECT FROM ${this.#world.levels[level]!.table} WHERE id = ${id})`
  }

  #isFree(table: string, id: number): string {
    return `NOT EXISTS (SELECT FROM ${table} WHERE id = ${id})`
  }

  #id(level: number): number {
    return 1 + this.#random.below(this.#world.levels[level]!.ids)
  }

  #idOf(table: string): number {
    return this.#id(this.#world.levels.findIndex(each => each.table === table))
  }

  #int(n: number): number {
    return 1 + this.#random.below(n)
  }

  #sub(): string {
    return `'${this.#random.pick(this.#world.subs)}'`
  }

  #user(): string {
    return this.#random.once(6) ? 'NULL' : this.#sub()
  }

  #boolean(): string {
    return this.#random.pick(['true', 'true', 'false', 'false', 'NULL'])
  }

  /** Past, never, or long from now: SELECT's now() and that of a commit agree about them. */
  #until(): string {
    return this.#random.pick(['NULL', 'NULL', `'2001-01-01'`, `'2101-01-01'`, `'2101-01-01'`])
  }

  #text(values: readonly string[]): string {
    return `'${this.#random.pick(values)}'`
  }

  #body(): string {
    return `'${this.#random.pick(['alpha', 'apple', 'beta', 'gamma'])} ${this.#random.below(100)}'`
  }
}
