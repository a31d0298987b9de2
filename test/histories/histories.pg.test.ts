// Generated histories: at every position each subscriber's rows equal its SELECT, and each event comes once. `npm run histories`
// plays thousands; here some, and every case that once went wrong.
import { randomInt } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { caseNames, readCase, textOf } from './cases.ts'
import { runHistories } from './run.ts'
import { fails } from './shrink.ts'
import { Site } from './site.ts'

let site: Site

beforeAll(async () => {
  site = await Site.start()
})

afterAll(async () => {
  await site?.[Symbol.asyncDispose]()
})

const count = Number(process.env.HISTORIES ?? 60)

test(`[P1] [P2] [P4] [P5] ${count} generated histories: every subscriber is shown what its SELECT shows, commit by commit`, {
  timeout: 60_000 + count * 1000,
}, async () => {
  const seed = Number(process.env.TEST_SEED ?? randomInt(2 ** 31))
  console.log(`histories: seed ${seed}`)
  const { failed, passed, tally } = await runHistories(site, { seed, count })
  if (failed !== null) console.log(`${textOf(failed.history)}\n${failed.played.story}`)
  expect(failed?.played.failure, `npm run histories -- --seed ${seed} --count ${count}`).toBe(undefined)
  expect(passed).toBe(count)
  expect(tally.of('changes', 'commit')).toBeGreaterThan(count * 29)
})

test.for(caseNames())('[P1] [P4] a history that once went wrong: %s', async name => {
  const played = await fails(site, readCase(name), null)
  expect(played?.failure, played?.story).toBe(undefined)
})
