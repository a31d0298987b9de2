import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, expect, inject, test, vi } from 'vitest'
import { parseChannelEntries } from '../../src/server/config/channel-entries.ts'
import { dropWorlds, linkPackage, readBlocks, runPage } from './guide-page.ts'

const policies = 'channel-policies'

/** Each with the page whose first blocks are its world. */
const pages: Readonly<Record<string, string | null>> = {
  'channel-policies': null,
  broadcast: 'channel-policies',
  presence: 'channel-policies',
  history: 'channel-policies',
  'live-queries': null,
  changes: 'live-queries',
  connection: 'live-queries',
  react: 'live-queries',
}
/** Has no program, or is run by a test of its own. */
const others = ['channel-rules', 'testing', 'supabase']

// Each has a database and a node of its own, and one of them waits for someone's lease to end.
vi.setConfig({ maxConcurrency: 3 })
afterAll(dropWorlds)

test.concurrent.each(Object.entries(pages))(
  'docs/guide/%s.md does what it says, block by block',
  { timeout: 120_000 },
  async (page, base) => {
    await runPage(`guide/${page}`, base === null ? null : `guide/${base}`)
  },
)

const ways = {
  polling: 'live-queries',
  'supabase-realtime': 'live-queries',
  'socket-io': policies,
  pusher: policies,
  centrifugo: policies,
}

test.concurrent.each(Object.entries(ways))(
  'docs/migrate/%s.md: ours does what it says',
  { timeout: 120_000 },
  async (page, base) => {
    await runPage(`migrate/${page}`, `guide/${base}`)
  },
)

test.concurrent('docs/guide/testing.md is a test that passes', { timeout: 120_000 }, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'guide-testing-'))
  try {
    await linkPackage(folder)
    const files = (await readBlocks('guide/testing')).filter(({ language }) => language === 'sql' || language === 'ts')
    for (const { text } of files) await writeFile(join(folder, /^(?:--|\/\/) (\S+)\n/.exec(text)![1]!), text)
    const env = { PATH: process.env.PATH, TEST_DATABASE_URL: inject('databaseUrl'), NODE_NO_WARNINGS: '1' }
    const { stdout } = await promisify(execFile)(process.execPath, ['--test'], { cwd: folder, env })
    expect(stdout).toMatch(/pass 2\n[\s\S]*fail 0\n/)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})

test('every page of the guide is run', () => {
  const folder = (name: string) => new URL(`../../docs/${name}/`, import.meta.url)
  expect(readdirSync(folder('migrate')).sort()).toEqual(
    Object.keys(ways)
      .map(page => `${page}.md`)
      .sort(),
  )
  expect(readdirSync(folder('guide')).sort()).toEqual(
    [...Object.keys(pages), ...others].map(page => `${page}.md`).sort(),
  )
})

test('the rules of the guide are rules', async () => {
  const blocks = (await readBlocks('guide/channel-rules')).filter(({ language }) => language === 'json')
  expect(blocks).toHaveLength(1)
  expect(parseChannelEntries(blocks[0]!.text).entries).toHaveLength(3)
  const [refused] = (await readBlocks('guide/channel-rules')).filter(({ language }) => language === 'text')
  const { refusals = [] } = parseChannelEntries(blocks[0]!.text.replace('24h', '8d'))
  expect(refused!.text).toBe(`CONFIG_INVALID: CHANNELS: ${refusals.join()}\n`)
})
