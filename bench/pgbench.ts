// Commits at a steady rate: messages of random rooms, each a transaction of its own, by Postgres's own tool.
import { spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { World } from './world.ts'

export interface Inserts {
  readonly firstRoom: number
  readonly lastRoom: number
  /** Commits. */
  readonly perSecond: number
  readonly seconds: number
}

/** A row says in `sent_us` when it was inserted. @throws what pgbench says */
export async function insertMessages({ postgres, binDir }: World, inserts: Inserts): Promise<void> {
  const { firstRoom, lastRoom, perSecond, seconds } = inserts
  const folder = await mkdtemp(join(tmpdir(), 'tidegate-bench-'))
  const script = join(folder, 'insert.sql')
  await writeFile(
    script,
    `\\set room random(${firstRoom}, ${lastRoom})\nINSERT INTO public.messages (id, room_id, body) VALUES (nextval('public.message_ids'), :room, 'a message of some words, as people write them to each other');\n`,
  )
  const args = ['-n', '-M', 'prepared', '-c', '8', '-j', '1', '-R', String(perSecond), '-T', String(seconds)]
  const child = spawn(join(binDir, 'pgbench'), [...args, '-f', script, postgres.url], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let errors = ''
  child.stderr.on('data', text => (errors += text))
  const code = await new Promise(resolve => child.once('exit', resolve))
  await rm(folder, { recursive: true })
  if (code !== 0) throw new Error(`pgbench ended with ${code}: ${errors}`)
}
