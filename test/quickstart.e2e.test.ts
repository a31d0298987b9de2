// A new user, an empty folder and the pages.
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { maxSeconds, pages } from '../scripts/quickstart.ts'

test('who follows the README, or the quickstart, has a live row in five minutes, install included', {
  timeout: 900_000,
}, async () => {
  const child = spawn(process.execPath, ['scripts/quickstart.ts'], {
    cwd: fileURLToPath(new URL('../', import.meta.url)),
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let out = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text
  })
  const code = await new Promise<number | null>(resolve => child.once('close', resolve))
  const lines = out.trim().split('\n')
  expect([code, lines.map(line => line.split(':')[0])]).toEqual([0, pages.map(({ path }) => path)])
  for (const line of lines) expect(Number(/after ([\d.]+) s/.exec(line)?.[1])).toBeLessThanOrEqual(maxSeconds)
  console.log(out)
})
