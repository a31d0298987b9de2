// What a client asks wrongly is refused by its documented code, the same over every wire, and harms nobody beside it.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { PeerCode } from '../../../src/protocol/codes.ts'
import { person, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { wires } from '../../support/readers.ts'
import { prepareRefusals, secretWord } from '../../support/refusals-schema.ts'
import { type Ask, ask, Bench, LoggedNode, misfitOf } from '../../support/refused.ts'

describe('what is asked for', () => {
  let database: TestDatabase
  let bench: Bench
  let token: string
  const [ada, ben] = [person(), person()]

  beforeAll(async () => {
    database = await TestDatabase.create()
    await prepareRefusals(database)
    await database.query(`INSERT INTO members VALUES (1, '${ada}'), (2, '${ben}')`)
    await database.query(`INSERT INTO messages VALUES (1, 2, 'ben', '${secretWord}')`)
    const node = await LoggedNode.start(database.url, {
      MAX_FILTER_LENGTH: '2000',
      MAX_FILTER_DEPTH: '4',
      MAX_FILTER_TERMS: '20',
    })
    token = await tokenFor(ben, { note: secretWord })
    bench = await Bench.open(node, database, await tokenFor(ada))
  })

  afterAll(async () => {
    await bench?.[Symbol.asyncDispose]()
    await database?.[Symbol.asyncDispose]()
  })

  /** Asked over each wire: the code, its status and its hints, nothing told that is not the reader's, and a neighbour who is
   *  served as before. */
  async function refuses(question: Ask, code: PeerCode): Promise<string> {
    let message = ''
    for (const transport of wires) {
      const answer = await ask(transport, bench.node.url, token, question)
      expect(misfitOf(answer, code), transport).toBe(null)
      message = answer.message
    }
    await bench.wasRefused(question, code)
    return message
  }

  const filter = (text: string): Ask => ({ table: 'kinds', filter: text })
  const value = (column: string, operator: string, text: string): Ask =>
    filter(`${encodeURIComponent(column)}=${operator}.${encodeURIComponent(text)}`)

  const names: readonly [PeerCode, Ask][] = [
    ['TABLE_UNKNOWN', { table: 'nothing' }],
    ['TABLE_UNKNOWN', { table: 'nowhere.messages' }],
    ['TABLE_UNKNOWN', { table: 'information_schema.sql_features' }],
    ['TABLE_UNKNOWN', { table: 'Messages' }],
    ['TABLE_UNKNOWN', { table: 'a.b.c' }],
    ['TABLE_UNKNOWN', { table: '..messages' }],
    ['TABLE_UNKNOWN', { table: '"messages' }],
    ['TABLE_UNKNOWN', { table: `messages'; DROP TABLE messages; --` }],
    ['TABLE_UNKNOWN', { table: 'messages" UNION SELECT 1 --' }],
    ['TABLE_UNKNOWN', { table: '"messages""; DROP TABLE messages; --"' }],
    ['TABLE_UNKNOWN', { table: 'messages\u0000' }],
    ['TABLE_UNKNOWN', { table: 'pub\u0000lic.messages' }],
    ['TABLE_UNKNOWN', { table: 'ｍessages' }],
    ['TABLE_UNKNOWN', { table: 'messages\u202e' }],
    ['TABLE_UNKNOWN', { table: '$1' }],
    ['TABLE_UNKNOWN', { table: '__proto__' }],
    ['TABLE_UNKNOWN', { table: 'constructor.prototype' }],
    ['TABLE_UNKNOWN', { table: '16384' }],
    ['TABLE_UNKNOWN', { table: 'm'.repeat(64) }],
    ['TABLE_UNKNOWN', { table: 'untracked' }],
    ['TABLE_UNKNOWN', { table: 'parted_1' }],
    ['TABLE_UNKNOWN', { table: 'a_sequence' }],
    ['TABLE_UNKNOWN', { table: 'an_index' }],
    ['TABLE_UNSUPPORTED', { table: 'a_view' }],
    ['TABLE_UNSUPPORTED', { table: 'a_matview' }],
    ['TABLE_UNSUPPORTED', { table: 'a_foreign' }],
    ['TABLE_UNSUPPORTED', { table: 'an_unlogged' }],
    ['TABLE_UNSUPPORTED', { table: 'a_parent' }],
    ['NO_PRIMARY_KEY', { table: 'keyless' }],
    ['TABLE_REFUSED', { table: 'hidden' }],
    ['TABLE_REFUSED', { table: 'closed.rows' }],
    ['TABLE_REFUSED', { table: 'by_hidden' }],
    ['KEY_NOT_READABLE', { table: 'unnamed' }],
    ['COLUMN_UNKNOWN', { table: 'veiled', select: ['body'] }],
    ['COLUMN_UNKNOWN', { table: 'veiled', filter: `body=eq.${secretWord}x` }],
    ['COLUMN_UNKNOWN', { table: 'veiled', filter: 'or=(id.eq.1,body.like.*h*)' }],
    ['COLUMN_UNKNOWN', { table: 'kinds', select: ['id', 'nothing'] }],
    ['COLUMN_UNKNOWN', { table: 'kinds', select: ['ctid'] }],
    ['COLUMN_UNKNOWN', { table: 'kinds', select: ['xmin'] }],
    ['COLUMN_UNKNOWN', { table: 'kinds', select: ['id"; DROP TABLE kinds; --'] }],
    ['COLUMN_UNKNOWN', { table: 'kinds', select: ['i\u0000d'] }],
    ['COLUMN_UNKNOWN', { table: 'kinds', select: ['__proto__'] }],
    ['COLUMN_UNKNOWN', { table: 'kinds', select: ['kinds.id'] }],
    ['COLUMN_UNKNOWN', { table: 'kinds', select: ['(SELECT version())'] }],
    ['COLUMN_UNKNOWN', filter('nothing=eq.1')],
    ['COLUMN_UNKNOWN', filter('ctid=eq.(0,1)')],
    ['COLUMN_UNKNOWN', filter('tableoid=eq.1')],
    ['COLUMN_UNKNOWN', filter('id%00=eq.1')],
    ['COLUMN_UNKNOWN', filter('id%20OR%201%3D1=eq.1')],
    ['COLUMN_UNKNOWN', filter('i%C4%B14=eq.1')],
    ['COLUMN_UNKNOWN', filter('__proto__=eq.1')],
    ['COLUMN_UNKNOWN', filter('jb-%3E%3Ea=eq.1')],
    ['COLUMN_UNKNOWN', filter('constructor=eq.1')],
    ['COLUMN_UNKNOWN', filter('or=(__proto__.eq.1)')],
    ['COLUMN_UNKNOWN', filter('%22id%22=eq.1')],
    ['COLUMN_UNKNOWN', filter('id::text=eq.1')],
    ['COLUMN_UNKNOWN', filter('id%0D%0AX:y=eq.1')],
  ]

  const filters: readonly [PeerCode, Ask][] = [
    ['FILTER_INVALID', filter('id=1')],
    ['FILTER_INVALID', filter('id=')],
    ['FILTER_INVALID', filter('id')],
    ['FILTER_INVALID', filter('id=equals.1')],
    ['FILTER_INVALID', filter('id=EQ.1')],
    ['FILTER_INVALID', filter('id=in.1,2')],
    ['FILTER_INVALID', filter('id=in.(1,2')],
    ['FILTER_INVALID', filter('or=id.eq.1')],
    ['FILTER_INVALID', filter('or=()')],
    ['FILTER_INVALID', filter('or=(id.eq.1')],
    ['FILTER_INVALID', filter('or=(id.eq.1)) OR (1=1')],
    ['FILTER_INVALID', filter('and=(id.eq."1)')],
    ['FILTER_INVALID', filter('id=constructor.1')],
    ['FILTER_INVALID', filter('id=is.1')],
    ['FILTER_INVALID', filter('id=is.true')],
    ['FILTER_INVALID', filter('id=like.1*')],
    ['FILTER_INVALID', filter('t=like.%25%5C')],
    ['FILTER_INVALID', value('t', 'eq', 'a\u0000b')],
    ['FILTER_INVALID', { table: 'kinds', kind: 'live', events: ['insert'] }],
    ['FILTER_UNSUPPORTED', filter('t=fts.cat')],
    ['FILTER_UNSUPPORTED', filter('t=match.[[:alpha:]]')],
    ['FILTER_UNSUPPORTED', filter('ia=cs.{1}')],
    ['FILTER_UNSUPPORTED', filter('icu=lt.a')],
    ['FILTER_UNSUPPORTED', filter('or=(id.eq.1,icu.gte.a)')],
    ['FILTER_UNSUPPORTED', filter('p=eq.(0,0)')],
    ['FILTER_UNSUPPORTED', filter('j=eq.{}')],
    ['FILTER_TOO_COMPLEX', filter(`t=eq.${'x'.repeat(2001)}`)],
    ['FILTER_TOO_COMPLEX', filter(`id=in.(${Array.from({ length: 21 }, (_, i) => i).join(',')})`)],
    ['FILTER_TOO_COMPLEX', filter(Array.from({ length: 21 }, () => 'id=gt.0').join('&'))],
    ['FILTER_TOO_COMPLEX', filter(`or=${'(and'.repeat(5)}(id.eq.1)${')'.repeat(5)}`)],
    ['FILTER_TOO_COMPLEX', filter(`t=like.${'a'.repeat(257)}`)],
    ['FILTER_TOO_COMPLEX', filter(`or=${'(or'.repeat(300)}(id.eq.1)${')'.repeat(300)}`)],
    ['FILTER_TOO_COMPLEX', filter(`and=(id.in.(${Array.from({ length: 600 }, () => 7).join(',')}))`)],
    ['FILTER_INVALID', filter('id=not.')],
    ['FILTER_INVALID', filter('id=not.not.not.1')],
    ['FILTER_INVALID', filter('not.or=id.eq.1')],
    ['FILTER_INVALID', filter('and=(or(),id.eq.1)')],
    ['FILTER_INVALID', filter('or=(id.eq.1,)')],
    ['FILTER_INVALID', filter('or=(id.eq.1;id.eq.2)')],
    ['FILTER_INVALID', filter('id=eq.1 OR 1=1')],
    ['FILTER_INVALID', filter("id=eq.1'; DROP TABLE kinds; --")],
    ['FILTER_INVALID', filter('id=in.(1,2)) OR (1=1')],
    ['FILTER_INVALID', filter('id=in.((SELECT 1))')],
    ['FILTER_INVALID', filter('id=__proto__.1')],
    ['FILTER_INVALID', filter('id=toString.1')],
    ['FILTER_INVALID', filter('id=is.not_nul')],
    ['FILTER_INVALID', value('id', 'eq', '1\u0000')],
    ['FILTER_INVALID', value('id', 'eq', '٣')],
    ['FILTER_INVALID', value('id', 'eq', '0x10')],
    ['FILTER_INVALID', value('id', 'eq', '1_000')],
    ['FILTER_INVALID', value('id', 'eq', '9'.repeat(1500))],
    ['FILTER_INVALID', value('n', 'eq', '1e999999')],
    ['FILTER_INVALID', value('t', 'ilike', 'a\\')],
    ['FILTER_INVALID', value('t', 'eq', 'a\u0000')],
    ['FILTER_INVALID', filter('ia=eq.{{1}}')],
    ['COLUMN_UNKNOWN', { table: 'kinds', filter: 'order.x=eq.1&limit.y=eq.1' }],
    ['FILTER_UNSUPPORTED', filter('t=phfts.cat')],
    ['FILTER_UNSUPPORTED', filter('t=eq(any).{a,b}')],
    ['FILTER_UNSUPPORTED', filter('jb=eq.{}')],
    ['FILTER_UNSUPPORTED', filter('t=imatch.\\y')],
    ['FILTER_INVALID', filter('order=id.desc;DROP TABLE kinds')],
    ['FILTER_INVALID', filter('order=id,,i4')],
    ['FILTER_INVALID', filter('limit=0')],
    ['FILTER_INVALID', filter('limit=5 OFFSET 1')],
  ]

  /** A value that its type does not take, by column. */
  const misfits: readonly [column: string, text: string][] = [
    ['i2', '32768'],
    ['i4', '2147483648'],
    ['i4', '1; DROP TABLE kinds'],
    ['i4', '1e3'],
    ['i8', '9223372036854775808'],
    ['i8', 'x'.repeat(100)],
    ['n', 'one'],
    ['f4', '1e39'],
    ['f8', '1e400'],
    ['b', 'maybe'],
    ['u', 'me'],
    ['d', '2026-02-30'],
    ['ts', 'yesterday'],
    ['tz', '2026-13-01'],
    ['tm', '25:00'],
    ['ia', '{1,a}'],
    ['by', '\\xzz'],
    ['m', 'angry'],
    ['dom', 'x'],
  ]

  const titleOf = ({ table, filter: text, select, since }: Ask): string =>
    JSON.stringify([table, text ?? select ?? since ?? '']).slice(0, 90)

  test.each([...names, ...filters].map(([code, question]) => [titleOf(question), code, question] as const))(
    '%s is %s',
    async (_, code, question) => {
      await refuses(question, code)
    },
  )

  const scalarOperators = ['eq', 'neq', 'lt', 'lte', 'gt', 'gte', 'isdistinct', 'not.eq']

  test.each(misfits)('a value that does not fit: %s %j', async (column, text) => {
    for (const operator of scalarOperators) {
      const answer = await ask('long-poll', bench.node.url, token, value(column, operator, text))
      expect(['FILTER_INVALID', 'FILTER_UNSUPPORTED'], `${operator}: ${answer.message}`).toContain(answer.code)
      expect(misfitOf(answer, answer.code as PeerCode), operator).toBe(null)
    }
    await refuses(value(column, 'in', `("${text.replaceAll(/["\\]/g, '\\$&')}")`), 'FILTER_INVALID')
    await refuses(value(column, 'eq', text), 'FILTER_INVALID')
  })

  const states: readonly [PeerCode, Ask, RegExp][] = [
    ['POLICY_UNSUPPORTED', { table: 'by_untracked' }, /untracked.*tidegate track/],
    ['CLAIM_INVALID', { table: 'by_setting' }, /app\.tenant/],
    ['POSITION_INVALID', { table: 'kinds', since: 'yesterday' }, /yesterday/],
    ['POSITION_INVALID', { table: 'kinds', since: '1f2e3d4c-16b3748' }, /no position/],
    ['POSITION_INVALID', { table: 'kinds', since: '1f2e3d4c-16b3748.tag~1f2e3d4c-16b3748.tag' }, /no position/],
    ['POSITION_INVALID', { table: 'kinds', since: `1f2e3d4c-16b3748.'; DROP TABLE kinds; --` }, /no position/],
    ['POSITION_INVALID', { table: 'kinds', since: `1f2e3d4c-${'f'.repeat(17)}.tag` }, /no position/],
    ['POSITION_INVALID', { table: 'kinds', since: '1f2e3d4c-1\u0000.tag' }, /no position/],
    ['POSITION_INVALID', { table: 'kinds', since: 'x'.repeat(1000) }, /no position/],
    ['POSITION_INVALID', { table: 'kinds', since: '1f2e3d4c--16b3748.tag' }, /no position/],
    ['POSITION_INVALID', { table: 'kinds', since: '1f2e3d4c-0x16b3748.tag' }, /no position/],
    ['POSITION_INVALID', { table: 'kinds', since: '1F2E3D4C-16B3748.tag' }, /no position/],
    ['POSITION_INVALID', { table: 'kinds', since: '1f2e3d4c-16b3748-1ffffffff.tag' }, /no position/],
    ['POSITION_INVALID', { table: 'kinds', since: '1f2e3d4c-16b3748.' }, /no position/],
    ['POSITION_INVALID', { table: 'kinds', since: '1f2e3d4c-16b3748.tag\r\nx: y' }, /no position/],
    ['POSITION_INVALID', { table: 'kinds', since: `1f2e3d4c-16b3748.${'t'.repeat(33)}` }, /no position/],
    ['POSITION_INVALID', { table: 'kinds', since: '-' }, /no position/],
    ['POSITION_INVALID', { table: 'kinds', since: '1f2e3d4c-16b3748.tag~' }, /no position/],
  ]

  test.each(states.map(([code, question, message]) => [titleOf(question), code, question, message] as const))(
    '%s is %s',
    async (_, code, question, message) => {
      expect(await refuses(question, code)).toMatch(message)
    },
  )
})
