// A short run of the fuzzer, with another seed each time; `npm run fuzz -- --seed N` repeats one, and goes on for longer.
import { randomInt } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { TestDatabase } from '../support/postgres.ts'
import { fuzz } from './fuzz.ts'
import { Oracle } from './oracle.ts'
import { secret } from './world.ts'

let database: TestDatabase
const codes = ['BAD_FRAME', 'POSITION_INVALID', 'TOKEN_INVALID', 'NOT_JOINED', 'PAYLOAD_TOO_LARGE']

beforeAll(async () => {
  database = await TestDatabase.create()
})

afterAll(async () => {
  await database?.[Symbol.asyncDispose]()
})

test('[P7] whatever is sent, it is refused by a documented code, and neighbours are told of every row', async () => {
  const seed = randomInt(2 ** 31)
  const verdict = await fuzz({ seed, runMs: 10_000, database, codes, say: () => {} })
  console.log(`fuzz: seed ${seed}, ${JSON.stringify(verdict.inputs)}, ${verdict.delivered} deliveries to neighbours`)
  expect(verdict.failures, `npm run fuzz -- --seed ${seed}`).toEqual([])
  // A run that asks nothing finds nothing.
  for (const actor of [
    'frames',
    'bytes',
    'requests',
    'tokens',
    'filters compared',
    'positions compared',
    'channel frames',
    'echoes',
  ])
    expect(verdict.inputs[actor] ?? 0, actor).toBeGreaterThan(0)
  expect(verdict.delivered).toBeGreaterThan(20)
  for (const code of codes) expect(verdict.codes[code] ?? 0, code).toBeGreaterThan(0)
}, 120_000)

const fine = { code: 'BAD_FRAME', message: 'the frame is not JSON', retry: false }

test.each<[string, (oracle: Oracle) => void]>([
  ['a code that is not documented', oracle => oracle.refusal({ ...fine, code: 'OOPS' }, 400, '')],
  ['an answer without a body', oracle => oracle.refusal(null, 400, '')],
  ['INTERNAL', oracle => oracle.refusal({ ...fine, code: 'INTERNAL', retry: true, retryAfterMs: 1 }, 500, '')],
  ['the status of another code', oracle => oracle.refusal(fine, 403, '')],
  ['a retry that does not fit', oracle => oracle.refusal({ ...fine, retry: true }, 400, '')],
  ['a hint left out', oracle => oracle.refusal({ code: 'BUSY', message: 'come back later', retry: true }, 503, '')],
  ['a stack', oracle => oracle.refusal({ ...fine, message: 'no at parse (file.ts:1:2)' }, 400, '')],
  ['words of Postgres', oracle => oracle.refusal({ ...fine, message: 'relation "x" does not exist' }, 400, '')],
  ['a value of a row', oracle => oracle.refusal({ ...fine, message: `the row has "${secret}"` }, 400, '')],
  ['a close code of nobody', oracle => oracle.closed(1011, null, '')],
  ['the close code of another refusal', oracle => oracle.closed(4201, 'BAD_FRAME', '')],
  ['a frame of no shape', oracle => oracle.frame('{"type":"snapshot"}', '')],
])('the oracle notices %s', (_, show) => {
  const oracle = new Oracle(secret)
  oracle.refusal(fine, 400, '')
  oracle.closed(4200, 'BAD_FRAME', '')
  expect(oracle.failures).toEqual([])
  show(oracle)
  expect(oracle.failures).toHaveLength(1)
})
