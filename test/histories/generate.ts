// One history of a seed: the same for the same seed and number, whatever ran before.
import { Random } from '../checker/random.ts'
import type { History, Span, Subscriber } from './history.ts'
import { drawPolicies } from './policies.ts'
import { StatementDraw } from './statements.ts'
import { drawWorld, tablesOf, type World } from './world.ts'

/** Some of them change nothing; enough are left. */
const transactions = 64

/** @param maxDepth tables on the chain above the rows */
export function generate(seed: number, number: number, maxDepth = 3): History {
  const random = Random.of(seed, 'history', number)
  const world = drawWorld(random, maxDepth)
  const { policies, functions, secured } = drawPolicies(random, world)
  const statements = new StatementDraw(random, world)
  return {
    name: `seed ${seed}, history ${number}`,
    tables: tablesOf(world, table => secured.has(table)),
    functions,
    policies,
    users: world.users,
    rows: statements.rows(),
    transactions: Array.from({ length: transactions }, () => statements.transaction()),
    subscribers: drawSubscribers(random, world),
    pace: random.pick(['each', 'burst']),
  }
}

function drawSubscribers(random: Random, world: World): Subscriber[] {
  const { users, levels, memberships } = world
  const drawn: Subscriber[] = []
  for (const user of [...users.keys(), random.below(5), random.below(5)]) {
    const table = random.pick(['items', 'items', 'items', levels[1]!.table, random.pick(memberships).table])
    const kind = random.once(4) ? 'changes' : 'live'
    const [filter, where] = random.once(2) ? ['', 'true'] : drawFilter(random, world, table)
    const select = table === 'items' && random.once(4) ? ['up', 'body'] : null
    const window = kind === 'live' && random.once(3) ? { window: drawWindow(random, world, table) } : {}
    drawn.push({
      user,
      kind,
      table,
      filter,
      where,
      ...window,
      select,
      joins: random.once(3) ? 1 + random.below(20) : 0,
      away: random.once(3) ? [drawSpan(random)] : [],
      slow: random.once(3) ? [drawSpan(random)] : [],
    })
  }
  return drawn
}

function drawSpan(random: Random): Span {
  const from = 1 + random.below(25)
  return [from, from + 1 + random.below(8)]
}

function drawWindow(random: Random, world: World, table: string): NonNullable<Subscriber['window']> {
  const membership = world.memberships.find(each => each.table === table)
  const keys = membership === undefined || membership.surrogate ? ['id'] : ['grp', 'usr']
  const own = membership === undefined ? ['id', 'owner', 'open', 'kind'] : ['usr', 'role', 'muted', 'until', 'grp']
  const names = [...own, ...(table === 'items' ? ['up', 'body'] : [])]
  const column = random.pick(names)
  const isDescending = random.once(2)
  const nulls = random.pick(['', 'first', 'last'])
  const term = `${column}${isDescending ? '.desc' : ''}${nulls === '' ? '' : `.nulls${nulls}`}`
  const sql = `${column}${isDescending ? ' DESC' : ''}${nulls === '' ? '' : ` NULLS ${nulls.toUpperCase()}`}`
  return { order: term, sql: [sql, ...keys].join(', '), limit: random.pick([1, 2, 3, 5]) }
}

/** @returns in PostgREST's grammar and in SQL */
function drawFilter(random: Random, world: World, table: string): [filter: string, where: string] {
  const { levels, subs } = world
  if (!levels.some(level => level.table === table))
    return random.pick<[string, string]>([
      ['grp=eq.1', 'grp = 1'],
      ['role=neq.banned', `role <> 'banned'`],
      ['muted=not.is.true', 'muted IS NOT TRUE'],
    ])
  const owner = random.pick(subs)
  const common: [string, string][] = [
    ['kind=eq.public', `kind = 'public'`],
    ['kind=in.(public,shared)', `kind IN ('public', 'shared')`],
    ['open=is.true', 'open IS TRUE'],
    [`or=(open.is.false,owner.eq.${owner})`, `(open IS FALSE OR owner = '${owner}')`],
    ['id=gt.2', 'id > 2'],
  ]
  if (table === 'items')
    common.push(['up=eq.1', 'up = 1'], ['up=in.(2,3)', 'up IN (2, 3)'], ['body=like.a*', `body LIKE 'a%'`])
  return random.pick(common)
}
