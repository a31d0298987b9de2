// A wrong table, column, operator, value or order does not compile, and rows are typed: see typed-queries.ts.
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const root = fileURLToPath(new URL('../../', import.meta.url))
const cases = join(root, 'test/client/typed-queries.ts')

/** @returns the compiler's complaints about a text that stands in the folder of this test */
async function compile(text: string): Promise<string[]> {
  // Inside, so that packages are found.
  const folder = await mkdtemp(join(root, 'node_modules/.typed-'))
  try {
    const config = {
      extends: join(root, 'tsconfig.json'),
      include: ['queries.ts'],
      compilerOptions: { rewriteRelativeImportExtensions: false },
    }
    await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(config))
    await writeFile(
      join(folder, 'queries.ts'),
      text.replace('./typed-client.ts', join(root, 'test/client/typed-client.ts')),
    )
    const output = await new Promise<string>((resolve, reject) => {
      const arguments_ = [join(root, 'node_modules/typescript/bin/tsc'), '--noEmit', '-p', folder]
      execFile(process.execPath, arguments_, { cwd: root }, (error, stdout) => {
        // 1 and 2: it found errors.
        if (error !== null && error.code !== 2 && error.code !== 1) reject(error)
        else resolve(stdout)
      })
    })
    return output.split('\n').filter(line => line.includes('error TS'))
  } finally {
    await rm(folder, { recursive: true })
  }
}

test('every wrong query in typed-queries.ts is an error where it stands, and nothing else is', async () => {
  expect(await compile(await readFile(cases, 'utf8'))).toEqual([])
})

test('the compiler sees them: without the comments that expect them, there is an error for each', async () => {
  const text = await readFile(cases, 'utf8')
  const expected = text.match(/@ts-expect-error/g)!.length
  expect(expected).toBeGreaterThan(20)
  const errors = await compile(text.replaceAll('@ts-expect-error', ''))
  expect(errors.length).toBeGreaterThanOrEqual(expected)
  expect(errors.every(error => error.includes('queries.ts'))).toBe(true)
})
