// docs/architecture.md, and the functions that it names.
import { readFileSync } from 'node:fs'

export const page = readFileSync(new URL('../../docs/architecture.md', import.meta.url), 'utf8')

/** `3. ``TransactionAssembler.push`` in ``src/...ts``: ...` */
export const namedFunctions = [...page.matchAll(/^(\d+)\. `([\w.]+)` in `(src\/[\w/.-]+)`: /gm)].map(match => ({
  number: Number(match[1]),
  name: match[2]!,
  file: match[3]!,
}))
