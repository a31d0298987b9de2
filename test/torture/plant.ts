// Preloaded into a node's process (node --import): plants the mistake that TORTURE_PLANT names in the sources as they are loaded.
// The sources themselves know nothing of it. A text that is not there any more stops the node: a mistake that was not planted
// would pass for one that was not noticed.
import { registerHooks } from 'node:module'

import { channelPlants } from './channels/plants.ts'

export interface Change {
  /** Below src/server. */
  readonly file: string
  readonly text: string
  readonly instead: string
}

export const plants: Readonly<Record<string, readonly Change[]>> = {
  'acknowledged before it is stored': [
    {
      file: 'relay/redis-inlet.ts',
      text: 'this.#options.prefix.came(commit)',
      instead: 'this.#options.prefix.came(commit); this.cameUpTo = commit.endLsn',
    },
    {
      file: 'relay/redis-inlet.ts',
      text: 'async acknowledgeable(): Promise<bigint | null> {',
      instead: 'cameUpTo: bigint | null = null; async acknowledgeable(): Promise<bigint | null> { return this.cameUpTo',
    },
  ],
  'IDs from a counter': [
    {
      file: 'relay/redis-inlet.ts',
      text: 'return outgoing(lsn, this.#attemptAt(lsn), 0, block, null)',
      instead: 'return outgoing(parseId(this.#sent).lsn + 1n, 0, 0, block, null)',
    },
    {
      file: 'relay/redis-inlet.ts',
      text: 'return outgoing(commit.commitLsn, attempt, part, block,',
      instead: 'return outgoing(parseId(this.#sent).lsn + (part === 0 ? 1n : 0n), 0, part, block,',
    },
    {
      file: 'relay/block-reader.ts',
      text: 'commits.at(-1)!.commitLsn !== id.lsn',
      instead: 'commits.at(-1)!.commitLsn < 0n',
    },
    {
      file: 'relay/block-reader.ts',
      text: 'commit.commitLsn === id.lsn && commit.commitLsn > header.prevLsn',
      instead: 'commit.commitLsn > header.prevLsn',
    },
  ],
  'no check of the chain': [
    {
      file: 'relay/redis-journal.ts',
      text: 'else if (feed.headLsn < read.prevLsn) {',
      instead: 'else if (feed.headLsn < 0n) {',
    },
  ],
  'a replay that is not judged again': [
    {
      file: 'subscribe/replay.ts',
      text: "!stillVisible(audience, item, op === 'delete')",
      instead: 'false',
    },
  ],
  ...channelPlants,
}

const name = process.env.TORTURE_PLANT
if (name !== undefined) {
  const changes = plants[name]
  if (changes === undefined) throw new Error(`no such mistake: ${name}`)
  registerHooks({
    load(url, context, nextLoad) {
      const loaded = nextLoad(url, context)
      const due = changes.filter(({ file }) => url.endsWith(`/src/server/${file}`))
      if (due.length === 0) return loaded
      let source = String(loaded.source)
      for (const { file, text, instead } of due) {
        if (source.split(text).length !== 2) throw new Error(`${file} does not hold once: ${text}`)
        source = source.replace(text, () => instead)
      }
      return { ...loaded, source }
    },
  })
}
