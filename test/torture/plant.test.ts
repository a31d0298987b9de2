import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { plants } from './plant.ts'

test.each(Object.entries(plants))('%s can be planted: each text to replace is in its file once', async (_, changes) => {
  for (const { file, text } of changes) {
    const source = await readFile(new URL(`../../src/server/${file}`, import.meta.url), 'utf8')
    expect(source.split(text).length - 1, `${file}: ${text}`).toBe(1)
  }
})
