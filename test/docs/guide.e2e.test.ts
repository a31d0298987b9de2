import { readdirSync } from 'node:fs'
import { expect, test } from 'vitest'
import { parseChannelEntries } from '../../src/server/channel-entries.ts'
import { readBlocks, runPage } from './guide-page.ts'

const policies = 'channel-policies'
const pages = [policies, 'broadcast', 'presence', 'history']

test.each(pages)('docs/guide/%s.md does what it says, block by block', { timeout: 120_000 }, async page => {
  await runPage(page, page === policies ? null : policies)
})

test('every page of the guide is run', () => {
  const folder = new URL('../../docs/guide/', import.meta.url)
  expect(readdirSync(folder).sort()).toEqual([...pages, 'channel-rules'].map(page => `${page}.md`).sort())
})

test('the rules of the guide are rules', async () => {
  const blocks = (await readBlocks('channel-rules')).filter(({ language }) => language === 'json')
  expect(blocks).toHaveLength(1)
  expect(parseChannelEntries(blocks[0]!.text).entries).toHaveLength(3)
  const [refused] = (await readBlocks('channel-rules')).filter(({ language }) => language === 'text')
  const { refusals = [] } = parseChannelEntries(blocks[0]!.text.replace('24h', '8d'))
  expect(refused!.text).toBe(`CONFIG_INVALID: CHANNELS: ${refusals.join()}\n`)
})
