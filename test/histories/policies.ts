// Draws policies over a world, in the shapes that people write. A table's policy reads tables further up the chain only, so
// that Postgres finds no recursion.
import type { Random } from '../checker/random.ts'
import type { Condition, Policy } from './history.ts'
import { type Membership, roles, type World } from './world.ts'

export interface Drawn {
  readonly condition: Condition
  readonly shapes: readonly string[]
}

export interface DrawnPolicies {
  readonly policies: readonly Policy[]
  readonly functions: readonly string[]
  readonly secured: ReadonlySet<string>
}

export function drawPolicies(random: Random, world: World): DrawnPolicies {
  return new PolicyDraw(random, world).all()
}

class PolicyDraw {
  readonly #random: Random
  readonly #world: World
  readonly #policies: Policy[] = []
  readonly #secured = new Set<string>()
  readonly #functions = new Map<string, string>()

  constructor(random: Random, world: World) {
    this.#random = random
    this.#world = world
  }

  all(): DrawnPolicies {
    const { levels, memberships, bans, hasProfiles } = this.#world
    const random = this.#random
    this.#secure(0)
    for (let level = 1; level < levels.length; level++) if (!random.once(3)) this.#secure(level)
    for (const { table } of memberships) this.#secureInner(table, 'usr')
    if (bans !== null) this.#secureInner(bans.table, 'usr')
    if (hasProfiles && random.once(2)) this.#add('profiles', false, { condition: `id = ${this.#uid()}`, shapes: [] })
    return { policies: this.#policies, functions: [...this.#functions.values()], secured: this.#secured }
  }

  /** The policies of a table on the chain. */
  #secure(level: number): void {
    const random = this.#random
    const { table } = this.#world.levels[level]!
    const count = random.pick(level === 0 ? [2, 2, 3, 3] : [1, 2, 2, 3])
    for (let i = 0; i < count; i++) this.#add(table, false, this.#tree(level))
    if (random.once(2)) {
      const { condition, shapes } = random.once(2) ? this.#negated(level) : this.#branch(level)
      this.#add(table, true, { condition, shapes: [...shapes, 'restrictive policy'] })
    }
  }

  /** Of a table that other policies read. */
  #secureInner(table: string, user: string): void {
    const random = this.#random
    if (random.once(2)) return
    const own = `${user} = ${this.#uid()}`
    const condition = random.pick<() => Condition>([
      () => own,
      () => own,
      () => 'true',
      () => (this.#world.hasProfiles ? { any: [own, this.#admin()] } : own),
    ])()
    this.#add(table, false, { condition, shapes: ['inner table under policies of its own'] })
  }

  #add(table: string, restrictive: boolean, { condition, shapes }: Drawn): void {
    this.#secured.add(table)
    const clause = this.#random.pick([
      'FOR SELECT TO authenticated',
      'FOR SELECT',
      'FOR ALL TO authenticated',
      'TO public',
    ])
    this.#policies.push({ table, restrictive, clause, using: condition, shapes: [...new Set(shapes)] })
  }

  /** What a policy's USING says. */
  #tree(level: number): Drawn {
    const random = this.#random
    const join = (kind: 'any' | 'all', parts: readonly Drawn[]): Drawn => ({
      condition:
        kind === 'any' ? { any: parts.map(part => part.condition) } : { all: parts.map(part => part.condition) },
      shapes: [...parts.flatMap(part => part.shapes), kind === 'any' ? 'OR of branches' : 'AND of conditions'],
    })
    const branch = (): Drawn => this.#branch(level)
    return random.pick<() => Drawn>([
      () => join('any', [branch(), branch()]),
      () => join('any', [branch(), branch(), branch()]),
      () => join('any', [this.#member(level), branch(), branch()]),
      () => join('all', [this.#member(level), branch()]),
      () => join('any', [branch(), join('all', [branch(), this.#negated(level)])]),
    ])()
  }

  #branch(level: number): Drawn {
    const random = this.#random
    const draws: (() => Drawn)[] = [
      () => this.#member(level),
      () => this.#member(level),
      () => this.#own(level),
      () => this.#public(level),
      () => (random.once(2) ? this.#own(level) : this.#public(level)),
      () => this.#claim(level),
      () => this.#negated(level),
      () => this.#negated(level),
      () => this.#coworker(level),
    ]
    if (level + 1 < this.#world.levels.length)
      draws.push(
        () => this.#group(level),
        () => this.#group(level),
      )
    if (this.#world.hasProfiles)
      draws.push(
        () => this.#reader(level),
        () => this.#reader(level),
      )
    return random.pick(draws)()
  }

  #own(level: number): Drawn {
    return { condition: `${this.#name(level)}.owner = ${this.#uid()}`, shapes: ['owner'] }
  }

  #public(level: number): Drawn {
    const table = this.#name(level)
    const condition = this.#random.pick([
      `${table}.open`,
      `coalesce(${table}.open, false)`,
      `${table}.open IS TRUE`,
      `${table}.open IS NOT FALSE`,
      `${table}.kind = 'public'`,
      `${table}.kind IN ('public', 'shared')`,
      `${table}.kind <> 'secret'`,
      `CASE WHEN ${table}.kind = 'draft' THEN ${table}.owner = auth.uid() ELSE ${table}.open END`,
    ])
    return { condition, shapes: ['public rows'] }
  }

  #claim(level: number): Drawn {
    const table = this.#name(level)
    const condition = this.#random.pick([
      `${table}.kind = (auth.jwt() ->> 'kind')`,
      `${table}.kind = (auth.jwt() -> 'app_metadata' ->> 'kind')`,
      `${table}.id = ANY ((auth.jwt() ->> 'ids')::int[])`,
      `auth.role() = 'authenticated' AND ${table}.open`,
    ])
    return { condition: { all: [condition] }, shapes: ['claim'] }
  }

  /** Membership in the row's group, or the group of its group, and so on. */
  #member(level: number): Drawn {
    const reachable = this.#world.memberships.filter(membership => membership.level >= level)
    if (reachable.length === 0) return this.#own(level)
    return this.#reach(level, this.#random.pick(reachable))
  }

  /** Nobody who is banned there. NOT IN keeps SQL's unknown: `grp` may be null. */
  #negated(level: number): Drawn {
    const { bans } = this.#world
    const random = this.#random
    if (bans === null || bans.level < level)
      return { condition: { not: this.#public(level).condition }, shapes: ['NOT of a comparison'] }
    const table = this.#name(level)
    const where = `b.usr = ${this.#uid()}`
    if (bans.level <= level + 1 && !random.once(3)) {
      const value = bans.level === level ? `${table}.id` : `${table}.up`
      const condition: Condition = { value, in: 'b.grp', from: `${bans.table} b`, where, as: 'not in' }
      return { condition, shapes: ['ban list', 'NOT IN'] }
    }
    const { condition, shapes } = this.#reach(level, bans)
    return { condition: { not: condition }, shapes: [...shapes, 'ban list'] }
  }

  /** Whoever shares a group with the row's owner. */
  #coworker(level: number): Drawn {
    const { table } = this.#random.pick(this.#world.memberships)
    const where: Condition = { all: [`a.usr = ${this.#name(level)}.owner`, `b.usr = ${this.#uid()}`] }
    const shapes = ['join in a subquery', 'shares a group with the owner']
    return { condition: { exists: `${table} a JOIN ${table} b ON b.grp = a.grp`, where }, shapes }
  }

  /** The group's own columns. */
  #group(level: number): Drawn {
    const group = this.#name(level + 1)
    const of = this.#random.pick([`g.owner = ${this.#uid()}`, 'g.open', `g.kind IN ('public', 'shared')`])
    const condition: Condition = this.#random.once(2)
      ? { exists: `${group} g`, where: { all: [`g.id = ${this.#name(level)}.up`, of] } }
      : { value: `${this.#name(level)}.up`, in: 'g.id', from: `${group} g`, where: of, as: 'in' }
    return { condition, shapes: ['columns of the group'] }
  }

  /** The reader's own profile. */
  #reader(level: number): Drawn {
    const table = this.#name(level)
    const mine = `f.id = ${this.#uid()}`
    const draws: (() => Condition)[] = [
      () => this.#admin(),
      () => `(SELECT f.role FROM profiles f WHERE ${mine}) IN ('owner', 'editor')`,
      () => `${table}.kind = (SELECT f.role FROM profiles f WHERE ${mine}) OR ${table}.open`,
    ]
    if (level + 1 < this.#world.levels.length)
      draws.push(
        () => `${table}.up = (SELECT f.team FROM profiles f WHERE ${mine})`,
        () => ({ value: `${table}.up`, in: 'f.team', from: 'profiles f', where: mine, as: 'in' }),
      )
    return { condition: { all: [this.#random.pick(draws)()] }, shapes: ['profile of the reader'] }
  }

  #admin(): Condition {
    return { exists: 'profiles f', where: { all: [`f.id = ${this.#uid()}`, `f.role = 'owner'`] } }
  }

  #reach(level: number, membership: Membership): Drawn {
    const table = this.#name(level)
    const hops = Math.max(0, membership.level - level - 1)
    const depth = ['direct membership', 'two hops', 'three hops'][hops]!
    const [value, at] = membership.level === level ? [`${table}.id`, level] : [`${table}.up`, level + 1]
    const extra = this.#extra()
    const drawn =
      hops > 0 && this.#random.once(2)
        ? this.#joined(value, at, membership, extra)
        : this.#nested(value, at, membership, extra)
    const shapes = [
      ...drawn.shapes,
      depth,
      ...(extra === null ? [] : [extra.includes('now()') ? 'grant that expires' : 'columns of the membership']),
    ]
    return { condition: drawn.condition, shapes }
  }

  /** One subquery over all tables on the way. */
  #joined(value: string, at: number, membership: Membership, extra: string | null): Drawn {
    const random = this.#random
    const tables: string[] = []
    const on: string[] = []
    for (let level = at; level < membership.level; level++) {
      tables.push(`${this.#name(level)} g${level}`)
      if (level > at) on.push(`g${level}.id = g${level - 1}.up`)
    }
    tables.push(`${membership.table} m`)
    on.push(`m.grp = g${membership.level - 1}.up`)
    const where: Condition[] = [`m.usr = ${this.#uid()}`, ...(extra === null ? [] : [extra])]
    if (random.once(4)) where.push(`g${at}.open IS NOT FALSE`)
    const isComma = random.once(3)
    const from = isComma
      ? tables.join(', ')
      : tables.map((name, i) => (i === 0 ? name : `JOIN ${name} ON ${on[i - 1]}`)).join(' ')
    if (isComma) where.push(...on)
    const shapes = ['join in a subquery']
    if (random.once(2))
      return { condition: { exists: from, where: { all: [`g${at}.id = ${value}`, ...where] } }, shapes }
    return {
      condition: { value, in: `g${at}.id`, from, where: { all: where }, as: random.pick(['in', 'in', 'any']) },
      shapes,
    }
  }

  /** A subquery within a subquery for each table on the way. */
  #nested(value: string, at: number, membership: Membership, extra: string | null): Drawn {
    const random = this.#random
    if (at < membership.level) {
      const alias = `g${at}`
      const inner = this.#nested(`${alias}.up`, at + 1, membership, extra)
      const more: Condition[] = random.once(4) ? [`${alias}.kind IS DISTINCT FROM 'secret'`] : []
      const shapes = [...inner.shapes, 'subquery in a subquery']
      const from = `${this.#name(at)} ${alias}`
      if (random.once(2))
        return {
          condition: { exists: from, where: { all: [`${alias}.id = ${value}`, inner.condition, ...more] } },
          shapes: [...shapes, 'EXISTS'],
        }
      const where: Condition = { all: [inner.condition, ...more] }
      return { condition: { value, in: `${alias}.id`, from, where, as: 'in' }, shapes: [...shapes, 'IN'] }
    }
    const from = `${membership.table} m`
    const mine = [`m.usr = ${this.#uid()}`, ...(extra === null ? [] : [extra])]
    return random.pick<() => Drawn>([
      () => ({ condition: { exists: from, where: { all: [`m.grp = ${value}`, ...mine] } }, shapes: ['EXISTS'] }),
      () => ({ condition: { value, in: 'm.grp', from, where: { all: mine }, as: 'in' }, shapes: ['IN'] }),
      () => ({
        condition: { value, in: 'm.grp', from, where: { all: mine }, as: 'any' },
        shapes: ['= ANY (ARRAY(SELECT))'],
      }),
      () => ({
        condition: { value, in: 'm.grp', from, where: { all: mine }, as: 'any' },
        shapes: ['= ANY (ARRAY(SELECT))'],
      }),
      () => this.#helper(value, membership),
      () => this.#helper(value, membership),
      () => this.#helper(value, membership),
      () => this.#helper(value, membership),
    ])()
  }

  /** A function in language SQL, the same for all who call it. */
  #helper(value: string, membership: Membership): Drawn {
    const random = this.#random
    const { table } = membership
    const isDefiner = random.once(2)
    if (random.once(24)) {
      const body = `BEGIN RETURN EXISTS (SELECT 1 FROM SCHEMA.${table} m WHERE m.grp = g AND m.usr = auth.uid()); END`
      const head = `CREATE FUNCTION SCHEMA.plpgsql_${table}(g int) RETURNS boolean LANGUAGE plpgsql STABLE`
      this.#functions.set(`plpgsql_${table}`, `${head} AS $$ ${body} $$`)
      return { condition: `SCHEMA.plpgsql_${table}(${value})`, shapes: ['PL/pgSQL function'] }
    }
    const rights = isDefiner ? 'SECURITY DEFINER' : 'SECURITY INVOKER'
    const path = random.pick(['', ` SET search_path = ''`])
    const name = `${isDefiner ? 'definer' : 'invoker'}_${table}`
    const shapes = [isDefiner ? 'SECURITY DEFINER function' : 'SECURITY INVOKER function']
    const define = (suffix: string, head: string, body: string): void => {
      if (!this.#functions.has(name + suffix))
        this.#functions.set(
          name + suffix,
          `CREATE FUNCTION SCHEMA.${name}${suffix}${head} LANGUAGE sql STABLE ${rights}${path} AS $$ ${body} $$`,
        )
    }
    if (random.once(2)) {
      define(
        '_has',
        '(g int) RETURNS boolean',
        `SELECT EXISTS (SELECT 1 FROM SCHEMA.${table} m WHERE m.grp = g AND m.usr = auth.uid())`,
      )
      return { condition: `SCHEMA.${name}_has(${value})`, shapes }
    }
    define('_groups', '() RETURNS SETOF int', `SELECT m.grp FROM SCHEMA.${table} m WHERE m.usr = auth.uid()`)
    return { condition: `${value} IN (SELECT SCHEMA.${name}_groups())`, shapes }
  }

  #extra(): string | null {
    if (this.#random.once(5)) return this.#random.pick(['m.until > now()', '(m.until IS NULL OR m.until > now())'])
    return this.#random.pick([
      null,
      null,
      `m.role IN ('owner', 'editor')`,
      `m.role = '${this.#random.pick(roles)}'`,
      `m.role <> 'banned'`,
      `NOT coalesce(m.muted, false)`,
      `m.role = ANY ('{owner,reader}'::text[])`,
      `(m.role = 'owner' OR m.muted IS NULL)`,
      `m.role <> (auth.jwt() ->> 'kind')`,
    ])
  }

  #uid(): string {
    return this.#random.pick(['auth.uid()', '(SELECT auth.uid())'])
  }

  #name(level: number): string {
    return this.#world.levels[level]!.table
  }
}
