// How large the client is in a page: minified and gzipped, what is loaded to begin with, and what is fetched with its first use. Fails above
// the limit. Run: npm run size
// With `-- --files` it lists what each file adds.
import { relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { rolldown } from 'rolldown'
import { minifySync } from 'rolldown/experimental'

/** Of `tidegate/client` as a page loads it, minified and gzipped, before it needs channels or a lesser transport. */
export const maxBytes = 15_000

const root = fileURLToPath(new URL('../', import.meta.url))
const entry = `${root}src/client/client.ts`
/** What a page may load besides. */
const beside = { 'tidegate/store': 'client/store/stored-queries.ts', 'tidegate/react': 'react/react.ts' } as const

/** One module of an entry and all that it imports, as a page loads it.
 *  @param leftOut files of `src`, and packages, that are not to be in it, nor what they alone import */
export async function bundle(
  input: string,
  leftOut: readonly string[] = [],
): Promise<{ readonly code: string; readonly imports: readonly string[] }> {
  const external = leftOut.map(name => (name.endsWith('.ts') ? `${root}src/${name}` : name))
  await using build = await rolldown({ input, cwd: root, platform: 'browser', external, logLevel: 'silent' })
  const { output } = await build.generate({ format: 'esm', minify: true, codeSplitting: false })
  const chunks = output.filter(each => each.type === 'chunk')
  return { code: chunks.map(({ code }) => code).join(''), imports: chunks.flatMap(({ imports }) => imports) }
}

export interface Size {
  readonly name: string
  /** Bytes. */
  readonly minified: number
  /** Of the same with level 9. */
  readonly gzip: number
}

/** What a page loads to begin with, what it fetches with the first use of what not every page needs, what all of it is, and what the entries
 *  beside it add. */
export async function sizes(): Promise<Size[]> {
  await using build = await rolldown({ input: entry, cwd: root, platform: 'browser', logLevel: 'silent' })
  const { output } = await build.generate({ format: 'esm', minify: true, chunkFileNames: '[name].js' })
  const chunks = new Map(output.flatMap(each => (each.type === 'chunk' ? [[each.fileName, each] as const] : [])))
  const first = new Set([...chunks.values()].filter(({ isEntry }) => isEntry))
  for (const { imports } of first) for (const name of imports) first.add(chunks.get(name)!)
  const later = [...chunks.values()].filter(chunk => !first.has(chunk))
  const rows = [
    sizeOf('tidegate/client', { code: [...first].map(({ code }) => code).join('') }),
    ...later.map(chunk => sizeOf(`  later ${chunk.name}`, chunk)),
    sizeOf('  in one file', await bundle(entry)),
  ]
  for (const [name, file] of Object.entries(beside))
    rows.push(sizeOf(name, await bundle(`${root}src/${file}`, ['client/client.ts', 'react'])))
  return rows
}

const sizeOf = (name: string, { code }: { readonly code: string }): Size => ({
  name,
  minified: Buffer.byteLength(code),
  gzip: gzipSync(code, { level: 9 }).length,
})

/** What each file of the client and below adds, minified by itself, the largest first. Names are shortened across files only in the
 *  whole, so the sum is a little more than it. */
export async function shares(): Promise<Size[]> {
  await using build = await rolldown({ input: entry, cwd: root, platform: 'browser', logLevel: 'silent' })
  const { output } = await build.generate({ format: 'esm', minify: 'dce-only', codeSplitting: false })
  const modules = output
    .flatMap(each => (each.type === 'chunk' ? Object.entries(each.modules) : []))
    .filter(([, { code }]) => code)
  const rows = modules.map(([path, { code }]) => {
    const name = `  ${relative(`${root}src`, path)}`
    return sizeOf(name, { code: minifySync(name, code ?? '', { module: false }).code })
  })
  return rows.toSorted((a, b) => b.gzip - a.gzip)
}

if (import.meta.main) {
  const rows = [...(await sizes()), ...(process.argv.includes('--files') ? await shares() : [])]
  const line = (name: string, ...columns: readonly (string | number)[]): void =>
    console.log(name.padEnd(36) + columns.map(column => String(column).padStart(10)).join(''))
  line('bytes', 'minified', 'gzipped')
  for (const { name, minified, gzip } of rows) line(name, minified, gzip)
  const { gzip } = rows[0]!
  if (gzip > maxBytes) {
    console.error(`tidegate/client is ${gzip} bytes, ${gzip - maxBytes} more than the ${maxBytes} it may be`)
    process.exitCode = 1
  }
}
