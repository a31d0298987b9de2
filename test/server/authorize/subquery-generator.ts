// Policies of subqueries within subqueries, at random, over a few small tables whose columns hold NULLs and repeat.

/** A number in [0, 1), the same sequence for the same seed. */
export type Random = () => number

/** Mulberry32. */
export function randomOf(seed: number): Random {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

export const users = [1, 2, 3, 4].map(n => `00000000-0000-4000-8000-00000000000${n}`)

type Type = 'int' | 'uuid' | 'text' | 'bool'

/** Columns by type. `docs` is what the policies guard. */
const tables: Readonly<Record<string, Readonly<Record<string, Type>>>> = {
  docs: { id: 'int', team_id: 'int', project_id: 'int', owner: 'uuid', kind: 'text', is_public: 'bool' },
  projects: { id: 'int', team_id: 'int', owner: 'uuid', kind: 'text', archived: 'bool' },
  teams: { id: 'int', org_id: 'int', kind: 'text' },
  members: { team_id: 'int', user_id: 'uuid', role: 'text', muted: 'bool' },
  bans: { project_id: 'int', user_id: 'uuid' },
  shares: { doc_id: 'int', team_id: 'int', user_id: 'uuid' },
  profiles: { id: 'uuid', org_id: 'int', kind: 'text' },
}

export const tableNames = Object.keys(tables)

/** Statements that make the tables and fill them. */
export function schemaOf(random: Random): string {
  const values: Readonly<Record<Type, () => string>> = {
    int: () => (random() < 0.12 ? 'NULL' : String(1 + Math.floor(random() * 6))),
    uuid: () => (random() < 0.12 ? 'NULL' : `'${pick(random, users)}'`),
    text: () => (random() < 0.12 ? 'NULL' : `'${pick(random, kinds)}'`),
    bool: () => pick(random, ['true', 'false', 'NULL']),
  }
  const row = (name: string, first: string | null): string =>
    Object.entries(tables[name]!)
      .map(([column, type]) => (column === 'id' && first !== null ? first : values[type]()))
      .join(', ')
  const rows = (name: string, count: number, id: (i: number) => string | null): string =>
    `INSERT INTO ${name} VALUES ${Array.from({ length: count }, (_, i) => `(${row(name, id(i))})`).join(', ')};`
  const number = (i: number): string => String(i + 1)
  return `
    CREATE TABLE docs (id int PRIMARY KEY, team_id int, project_id int, owner uuid, kind text, is_public boolean);
    CREATE TABLE projects (id int PRIMARY KEY, team_id int, owner uuid, kind text, archived boolean);
    CREATE TABLE teams (id int PRIMARY KEY, org_id int, kind text);
    CREATE TABLE members (team_id int, user_id uuid, role text, muted boolean);
    CREATE TABLE bans (project_id int, user_id uuid);
    CREATE TABLE shares (doc_id int, team_id int, user_id uuid);
    CREATE TABLE profiles (id uuid PRIMARY KEY, org_id int, kind text);
    ${rows('docs', 100, number)} ${rows('projects', 6, number)} ${rows('teams', 5, number)}
    ${rows('members', 14, () => null)} ${rows('bans', 6, () => null)} ${rows('shares', 12, () => null)}
    ${rows('profiles', 3, i => `'${users[i]}'`)}`
}

const kinds = ['a', 'b', 'c']

const pick = <T>(random: Random, items: readonly T[]): T => items[Math.floor(random() * items.length)]!

/** A table in sight, by its alias. */
interface Sight {
  readonly alias: string
  readonly columns: Readonly<Record<string, Type>>
}

export class SubqueryGenerator {
  readonly #random: Random
  #aliases = 0

  constructor(random: Random) {
    this.#random = random
  }

  /** USING of a policy on a table. */
  policy(table: string, depth = 3): string {
    this.#aliases = 0
    const guarded: Sight = { alias: table, columns: tables[table]! }
    const condition = this.#condition([guarded], depth)
    return this.#chance(0.3) ? `${condition} OR ${this.#leaf([guarded])}` : condition
  }

  #chance = (share: number): boolean => this.#random() < share

  #pick = <T>(items: readonly T[]): T => pick(this.#random, items)

  /** @param sights innermost first */
  #condition(sights: readonly Sight[], depth: number): string {
    const roll = this.#random()
    if (depth === 0 || roll < 0.12) return this.#leaf(sights)
    if (roll < 0.24) return `(${this.#condition(sights, depth)} AND ${this.#condition(sights, depth - 1)})`
    if (roll < 0.34) return `(${this.#condition(sights, depth)} OR ${this.#condition(sights, depth - 1)})`
    if (roll < 0.39) return `NOT (${this.#condition(sights, depth - 1)})`
    if (roll < 0.42)
      return `CASE WHEN ${this.#leaf(sights)} THEN ${this.#condition(sights, depth - 1)} ELSE ${this.#leaf(sights)} END`
    if (roll < 0.45) return `(${this.#condition(sights, depth - 1)}) IS NOT TRUE`
    return this.#subquery(sights, depth)
  }

  #leaf(sights: readonly Sight[]): string {
    const [sight] = sights
    const [name, type] = this.#pick(Object.entries(sight!.columns))
    const column = `${sight!.alias}.${name}`
    if (this.#chance(0.1)) return `${column} IS ${this.#pick(['', 'NOT '])}NULL`
    switch (type) {
      case 'bool':
        return this.#pick([column, `NOT ${column}`, `coalesce(${column}, false)`, `${column} IS NOT TRUE`])
      case 'uuid':
        return `${column} = ${this.#pick(['auth.uid()', '(SELECT auth.uid())'])}`
      case 'text':
        return this.#pick([`${column} = '${this.#pick(kinds)}'`, `${column} <> 'b'`, `${column} IN ('a', 'c')`])
      case 'int':
        return `${column} ${this.#pick(['=', '<>', '<', '>='])} ${1 + Math.floor(this.#random() * 6)}`
    }
  }

  #subquery(sights: readonly Sight[], depth: number): string {
    const roll = this.#random()
    const not = this.#chance(0.3) ? 'NOT ' : ''
    if (roll < 0.5) return `${not}EXISTS (${this.#select(sights, depth, null)})`
    const [sight] = sights
    const usable = Object.entries(sight!.columns).filter(([, type]) => type === 'int' || type === 'uuid')
    if (usable.length === 0) return `${not}EXISTS (${this.#select(sights, depth, null)})`
    const [name, type] = this.#pick(usable)
    const column = `${sight!.alias}.${name}`
    if (roll < 0.8) return `${column} ${not}IN (${this.#rows(sights, depth, type)})`
    if (roll < 0.84) return `${column} ${not === '' ? '= ANY' : '<> ALL'} (ARRAY(${this.#select(sights, depth, type)}))`
    if (roll < 0.9) return `(${this.#select(sights, depth, null, 'count(*)')}) ${this.#pick(['> 0', '= 0', '>= 1'])}`
    return this.#scalar(sights)
  }

  #rows(sights: readonly Sight[], depth: number, type: Type): string {
    if (!this.#chance(0.15)) return this.#select(sights, depth, type)
    const union = this.#pick(['UNION', 'UNION ALL'])
    return `${this.#select(sights, depth - 1, type)} ${union} ${this.#select(sights, depth - 1, type)}`
  }

  #scalar(sights: readonly Sight[]): string {
    const org = this.#alias()
    const who = `(SELECT ${org}.kind FROM profiles ${org} WHERE ${org}.id = auth.uid())`
    const [sight] = sights
    const int = Object.entries(sight!.columns).find(([, type]) => type === 'int')?.[0]
    return this.#pick([
      `${who} = '${this.#pick(kinds)}'`,
      `${who} IN ('a', 'b')`,
      `coalesce(${who}, 'a') = 'a'`,
      `NOT (${who} = 'c')`,
      `${who} IS NULL`,
      ...(int === undefined
        ? []
        : [`${sight!.alias}.${int} = (SELECT ${org}.org_id FROM profiles ${org} WHERE ${org}.id = auth.uid())`]),
    ])
  }

  #alias(): string {
    this.#aliases++
    return `t${this.#aliases}`
  }

  /** @param wanted the type of what is selected; null when it does not matter */
  #select(outer: readonly Sight[], depth: number, wanted: Type | null, target?: string): string {
    const own: Sight[] = []
    const from: string[] = []
    const conditions: string[] = []
    const count = this.#pick([1, 1, 1, 2, 2, 3])
    for (let i = 0; i < count; i++) {
      const name = this.#pick(tableNames.slice(1))
      const sight: Sight = { alias: this.#alias(), columns: tables[name]! }
      const tie = this.#tie(sight, i === 0 ? outer : own)
      const item = this.#item(name, sight.alias)
      if (i === 0) {
        from.push(item)
        if (tie !== null && (wanted === null || this.#chance(0.3))) conditions.push(tie)
      } else if (tie !== null && this.#chance(0.6)) {
        const kind = this.#chance(0.25) ? 'LEFT JOIN' : 'JOIN'
        from[from.length - 1] += ` ${kind} ${kind === 'JOIN' ? item : `${name} ${sight.alias}`} ON ${tie}`
      } else {
        from.push(item)
        if (tie !== null) conditions.push(tie)
      }
      own.push(sight)
    }
    // Now and then a table is tied to the row as well, or once more.
    if (this.#chance(0.2)) {
      const tie = this.#tie(this.#pick(own), outer)
      if (tie !== null) conditions.push(tie)
    }
    const sights = [this.#pick(own), ...own, ...outer]
    for (let i = this.#pick([0, 1, 1, 2]); i > 0; i--) conditions.push(this.#leaf([this.#pick(own)]))
    if (depth > 1 && this.#chance(0.55)) conditions.push(this.#condition(sights, depth - 1))
    const selected = target ?? this.#target(own, wanted)
    const where = conditions.length === 0 ? '' : ` WHERE ${conditions.join(' AND ')}`
    const distinct = wanted !== null && this.#chance(0.1) ? 'DISTINCT ' : ''
    return `SELECT ${distinct}${selected} FROM ${from.join(', ')}${where}`
  }

  #item(name: string, alias: string): string {
    return this.#chance(0.12)
      ? `(SELECT * FROM ${name} WHERE ${this.#leaf([{ alias: name, columns: tables[name]! }])}) ${alias}`
      : `${name} ${alias}`
  }

  #target(own: readonly Sight[], wanted: Type | null): string {
    if (wanted === null) return '1'
    const found = own.flatMap(({ alias, columns }) =>
      Object.entries(columns).flatMap(([name, type]) => (type === wanted ? [`${alias}.${name}`] : [])),
    )
    if (found.length > 0) return this.#pick(found)
    return wanted === 'int' ? '3' : 'auth.uid()'
  }

  /** An equality with a column of one of the others; null when none has its type. */
  #tie(sight: Sight, others: readonly Sight[]): string | null {
    const pairs = others
      .slice(0, 3)
      .flatMap(other =>
        Object.entries(sight.columns).flatMap(([name, type]) =>
          Object.entries(other.columns).flatMap(([otherName, otherType]) =>
            type === otherType && (type === 'int' || type === 'uuid')
              ? [`${sight.alias}.${name} = ${other.alias}.${otherName}`]
              : [],
          ),
        ),
      )
    return pairs.length === 0 ? null : this.#pick(pairs)
  }
}
