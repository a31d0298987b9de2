// Every policy of the corpus over a real node: live queries of several readers, then transactions, after each of which every
// live query is what its reader's SELECT returns, and nothing was sent that the reader may not see.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { DeltaEvent, JsonRow } from '../../src/protocol/messages.ts'
import { comparePositions, type Position, parsePosition, parseQueryPositions } from '../../src/protocol/position.ts'
import { settingsList } from '../../src/server/authorize/settings.ts'
import type { Principal } from '../../src/server/subscribe/subscription.ts'
import { asSet, LiveSse, type SseEvent, TestNode, tokenFor } from '../support/node.ts'
import { asked } from './asked.ts'
import { Corpus, claimSettings, corpus, fullName } from './corpus.ts'
import type { Entry } from './entry.ts'
import { expiring, transactions } from './transactions.ts'

interface Follower {
  readonly entry: Entry
  readonly name: string
  readonly reader: Principal
  readonly live: LiveSse
  /** Events that were looked at. */
  seen: number
}

let installed: Corpus
let node: TestNode
const followers: Follower[] = []
/** `entry / reader`, with the code. */
const refused = new Map<string, string>()

beforeAll(async () => {
  installed = await Corpus.create()
  node = await TestNode.start(installed.database.url, {
    JWT_ROLE_CLAIM: 'db_role',
    JWT_ROLES: installed.roles.join(','),
    HEARTBEAT_MS: '200',
    // On a busy machine no policy here is slow by itself.
    ASKED_TIMEOUT_MS: '30000',
    CLAIM_SETTINGS: claimSettings.map(({ setting, claim }) => `${setting}=${claim}`).join(','),
  })
  const wanted = corpus.flatMap(entry =>
    Object.entries(installed.readers(entry))
      .filter(([name]) => name !== 'dan')
      .map(([name, reader]) => ({ entry, name, reader })),
  )
  for (let i = 0; i < wanted.length; i += 20) await Promise.all(wanted.slice(i, i + 20).map(follow))
}, 180_000)

afterAll(async () => {
  for (const { live } of followers) live.stream.close()
  await node?.[Symbol.asyncDispose]()
  await installed?.[Symbol.asyncDispose]()
})

async function follow({ entry, name, reader }: Pick<Follower, 'entry' | 'name' | 'reader'>): Promise<void> {
  const live = await LiveSse.open(node, `/v1/live/${entry.table}`, await tokenOf(reader))
  if (live.stream.status === 200) followers.push({ entry, name, reader, live: await live.exact(), seen: 0 })
  else refused.set(`${entry.name} / ${name}`, live.stream.errorBody.code ?? '')
}

const tokenOf = ({ claims }: Principal): Promise<string> => tokenFor('', { sub: undefined, ...claims })

const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`

/** The rows of the reader's SELECT. */
async function selected({ entry, reader }: Pick<Follower, 'entry' | 'reader'>): Promise<JsonRow[]> {
  const sets = settingsList(reader, { claimSettings }).map(
    ([name, value]) => `set_config(${literal(name)}, ${literal(value)}, true)`,
  )
  const { client } = installed.database
  try {
    const results = await client.query<{ row: JsonRow }>(
      `BEGIN; SET LOCAL TimeZone = 'UTC'; SELECT ${sets.join(', ')}; SELECT to_jsonb(q) AS row FROM ${fullName(entry.table)} q;`,
    )
    return (results as unknown as { rows: { row: JsonRow }[] }[]).at(-1)!.rows.map(({ row }) => row)
  } finally {
    await client.query('ROLLBACK')
  }
}

const titleOf = ({ entry, name }: Follower): string => `${entry.name} / ${name}`

/** Commits, and gives the position of the commit. */
async function commit(sql: string): Promise<Position> {
  const { database } = installed
  const [begun] = await database.query<{ txid: string }>('BEGIN; SELECT pg_current_xact_id()::text AS txid')
  await database.query(sql).catch(async error => {
    await database.query('ROLLBACK')
    throw error
  })
  await database.query('COMMIT')
  const response = await fetch(`${node.url}/v1/wait`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${await tokenOf(installed.readers(corpus[0]!).ada!)}`,
      'content-type': 'application/json',
    },
    body: JSON.stringify({ txid: begun!.txid }),
  })
  const { position } = (await response.json()) as { position: string }
  return parsePosition(position)!
}

/** Waits until every live query stands at the position, or past it: there its rows must be those of its SELECT. What Postgres
 *  is asked for may come later.
 *  @param position null where they begin; 'soon' when no commit says when */
async function allEqual(position: Position | null | 'soon'): Promise<void> {
  const expected = new Map<Follower, string>()
  for (const follower of followers) expected.set(follower, asSet(await selected(follower)).join('\n'))
  const isThere = ({ live }: Follower): boolean => {
    if (!live.rows.exact || position === 'soon') return false
    const [stands] = parseQueryPositions(live.stream.lastEventId) ?? []
    return position === null || (stands !== undefined && comparePositions(stands, position) >= 0)
  }
  const isEqual = (follower: Follower): boolean =>
    asSet(follower.live.rows.list()).join('\n') === expected.get(follower)
  let waiting = followers
  const wrong: Follower[] = []
  const deadline = Date.now() + 20_000
  while (waiting.length > 0 && Date.now() < deadline) {
    waiting = waiting.filter(follower => {
      if (follower.live.failure !== null) return false
      if (position === 'soon' || follower.entry.name in asked) return !isEqual(follower)
      if (!isThere(follower)) return true
      if (!isEqual(follower)) wrong.push(follower)
      return false
    })
    await new Promise(resolve => setTimeout(resolve, 5))
  }
  expect([...wrong, ...waiting].map(follower => differenceOf(follower, expected.get(follower)!))).toEqual([])
  expect(followers.flatMap(({ live }) => (live.failure === null ? [] : [String(live.failure)]))).toEqual([])
}

function differenceOf(follower: Follower, expected: string): unknown {
  const held = new Set(asSet(follower.live.rows.list()))
  const wanted = new Set(expected === '' ? [] : expected.split('\n'))
  return {
    title: titleOf(follower),
    tooMany: [...held].filter(row => !wanted.has(row)).slice(0, 3),
    missing: [...wanted].filter(row => !held.has(row)).slice(0, 3),
    ...(follower.live.stream.ended ? { endedBy: follower.live.stream.events.at(-1) } : {}),
  }
}

const unseenBy = ({ live, seen }: Follower): SseEvent[] => live.stream.events.slice(seen)

/** Whether it was told of anything since the last time. */
const isMoved = (follower: Follower): boolean =>
  unseenBy(follower).some(({ event }) => event === 'delta' || event === 'resync')

/** Rows that were sent since the last time, and that no reader's live query holds now: sent though not to be seen. */
function sentInVain(follower: Follower): string[] {
  const held = new Set(follower.live.rows.list().map(({ id }) => String(id)))
  const fresh = unseenBy(follower)
  follower.seen += fresh.length
  const changes = fresh.flatMap(({ event, data }) => (event === 'delta' ? (data as DeltaEvent).changes : []))
  return changes
    .filter(change => change.op === 'insert' || change.op === 'update')
    .map(change => String((change as { key: JsonRow }).key.id))
    .filter(id => !held.has(id))
    .map(id => `${titleOf(follower)}: ${id}`)
}

test('[P8] only whose claims do not fit is refused, and each is told whether the answer is exact', async () => {
  expect(followers.length).toBeGreaterThan(350)
  for (const [title, code] of refused) {
    const [entry, name] = title.split(' / ')
    const of = corpus.find(candidate => candidate.name === entry)!
    expect({ [title]: code }).toEqual({ [title]: 'CLAIM_INVALID' })
    await expect(selected({ entry: of, reader: installed.readers(of)[name!]! })).rejects.toThrow(/invalid input syntax/)
  }
  const isExact = ({ live }: Follower): boolean =>
    live.stream.events.every(({ event, data }) => event !== 'subscribed' || (data as { exact?: false }).exact !== false)
  // Nobody is asked about a reader for whose role no policy of the entry stands.
  const inexact = followers.filter(follower => !isExact(follower))
  expect(new Set(inexact.map(({ entry }) => entry.name))).toEqual(new Set(Object.keys(asked)))
})

test('[P1] each begins with the rows of its SELECT', () => allEqual(null))

describe('[P1] [P2] [P3] every live query is its reader’s SELECT after', () => {
  test.each(transactions)('$name', async ({ sql }) => {
    await allEqual(await commit(sql))
    expect(followers.filter(isMoved).length).toBeGreaterThan(10)
    expect(followers.flatMap(sentInVain)).toEqual([])
  })
})

test('[P1] what the time decides comes and goes at its moment, without a commit', async () => {
  const position = await commit(expiring)
  await installed.database.query(
    'SELECT pg_sleep(extract(epoch FROM max(until) - now()) + 0.05) FROM bans WHERE id > 940',
  )
  await allEqual('soon')
  const isLater = ({ event, id }: SseEvent): boolean =>
    event === 'delta' && comparePositions(parseQueryPositions(id)![0]!, position) > 0
  const moved = new Set(followers.filter(follower => unseenBy(follower).some(isLater)).map(({ entry }) => entry))
  expect([...moved].filter(({ sql }) => /now\(\)|CURRENT_TIMESTAMP/.test(sql)).length).toBeGreaterThan(5)
  await allEqual(await commit('DELETE FROM bans WHERE id > 940'))
})
