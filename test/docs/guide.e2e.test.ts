import { readdirSync } from 'node:fs'
import { expect, test } from 'vitest'
import { parseChannelEntries } from '../../src/server/channel-entries.ts'
import { readBlocks, runPage } from './guide-page.ts'

/** Each with the page whose first blocks are its world. */
const pages: Readonly<Record<string, string | null>> = {
  'channel-policies': null,
  broadcast: 'channel-policies',
  presence: 'channel-policies',
  history: 'channel-policies',
  'live-queries': null,
  changes: 'live-queries',
  connection: 'live-queries',
}
/** Has no program, or is run by a test of its own. */
const others = ['channel-rules', 'react', 'testing']

test.each(Object.entries(pages))('docs/guide/%s.md does what it says, block by block', { timeout: 120_000 }, async (page, base) => {
  await runPage(`guide/${page}`, base === null ? null : `guide/${base}`)
})

test('every page of the guide is run', () => {
  const folder = new URL('../../docs/guide/', import.meta.url)
  expect(readdirSync(folder).sort()).toEqual([...Object.keys(pages), ...others].map(page => `${page}.md`).sort())
})

test('the rules of the guide are rules', async () => {
  const blocks = (await readBlocks('guide/channel-rules')).filter(({ language }) => language === 'json')
  expect(blocks).toHaveLength(1)
  expect(parseChannelEntries(blocks[0]!.text).entries).toHaveLength(3)
  const [refused] = (await readBlocks('guide/channel-rules')).filter(({ language }) => language === 'text')
  const { refusals = [] } = parseChannelEntries(blocks[0]!.text.replace('24h', '8d'))
  expect(refused!.text).toBe(`CONFIG_INVALID: CHANNELS: ${refusals.join()}\n`)
})
