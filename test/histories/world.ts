// What a history's schema is made of: a chain of tables (items, projects, teams, orgs), memberships that attach somewhere on it,
// bans, profiles. Drawn first; policies and statements are drawn over it.
import type { Random } from '../checker/random.ts'
import { type Claims, type Table, uuidOf } from './history.ts'

/** What happens to rows when the row they refer to goes or changes its key; `none`: nothing refers. */
export type Reference = 'none' | 'cascade' | 'set null'

export interface Level {
  readonly table: string
  /** Ids are drawn from 1 to this. */
  readonly ids: number
  /** To the next level; null at the last. */
  readonly up: Reference | null
}

export interface Membership {
  readonly table: string
  /** Its `grp` is an id of this level. */
  readonly level: number
  readonly reference: 'none' | 'cascade'
  /** A key of its own, so that one user may be in a group twice. */
  readonly surrogate: boolean
}

export interface World {
  readonly levels: readonly Level[]
  readonly memberships: readonly Membership[]
  readonly bans: Membership | null
  readonly hasProfiles: boolean
  readonly users: readonly Claims[]
  /** Of the users that have one. */
  readonly subs: readonly string[]
}

export const kinds = ['public', 'shared', 'secret', 'draft'] as const
export const roles = ['owner', 'editor', 'reader', 'banned'] as const

export function drawWorld(random: Random, maxDepth: number): World {
  const depth = random.once(2) ? maxDepth : 1 + random.below(maxDepth)
  const levels = ['items', 'projects', 'teams', 'orgs'].slice(0, depth + 1).map((table, level) => ({
    table,
    ids: [10, 4, 3, 2][level]!,
    up: level === depth ? null : random.pick<Reference>(['none', 'none', 'cascade', 'set null']),
  }))
  const membership = (table: string, level: number): Membership => ({
    table,
    level,
    reference: random.pick(['none', 'none', 'cascade']),
    surrogate: random.once(3),
  })
  const memberships = [membership('members', random.once(4) ? 1 : depth)]
  if (random.once(2)) memberships.push(membership('shares', random.below(depth + 1)))
  const users = Array.from({ length: 5 }, (_, user) => drawClaims(random, user))
  return {
    levels,
    memberships,
    bans: random.once(4) ? null : { ...membership('bans', random.below(depth + 1)), surrogate: true },
    hasProfiles: !random.once(4),
    users,
    subs: users.flatMap(({ sub }) => sub ?? []),
  }
}

function drawClaims(random: Random, user: number): Claims {
  if (user === 4 && random.once(4)) return { role: 'anon' }
  const ids = Array.from({ length: random.below(4) }, () => 1 + random.below(5))
  return {
    role: 'authenticated',
    sub: uuidOf(user),
    kind: random.pick(kinds),
    ids: `{${ids.join(',')}}`,
    app_metadata: { kind: random.pick(kinds) },
  }
}

export function tablesOf(world: World, isSecured: (table: string) => boolean): Table[] {
  const { levels, memberships, bans, hasProfiles } = world
  const table = (name: string, key: readonly string[], columns: readonly string[]): Table => ({
    name,
    key,
    columns,
    rowSecurity: isSecured(name),
  })
  const refers = (reference: Reference, to: string): string =>
    reference === 'none' ? '' : ` REFERENCES ${to} ON UPDATE CASCADE ON DELETE ${reference.toUpperCase()}`
  const chain = levels.map(({ table: name, up }, level) =>
    table(
      name,
      ['id'],
      [
        'id int PRIMARY KEY',
        ...(up === null ? [] : [`up int${refers(up, levels[level + 1]!.table)}`]),
        'owner uuid',
        'open boolean',
        'kind text',
        ...(level === 0 ? ['body text'] : []),
      ],
    ),
  )
  const attached = [...memberships, ...(bans === null ? [] : [bans])].map(
    ({ table: name, level, reference, surrogate }) =>
      table(name, surrogate ? ['id'] : ['grp', 'usr'], [
        ...(surrogate ? ['id int PRIMARY KEY'] : []),
        `grp int${refers(reference, levels[level]!.table)}`,
        'usr uuid',
        'role text',
        'muted boolean',
        'until timestamptz',
        ...(surrogate ? [] : ['PRIMARY KEY (grp, usr)']),
      ]),
  )
  const profiles = hasProfiles ? [table('profiles', ['id'], ['id uuid PRIMARY KEY', 'team int', 'role text'])] : []
  // A table comes after those that it refers to.
  return [...chain.reverse(), ...attached, ...profiles]
}
