// Serves our own modules to a browser: from src/ with the types stripped as they are asked for, from dist/ as they are.
import { readFile } from 'node:fs/promises'
import { stripTypeScriptTypes } from 'node:module'

/** What a page may load, and nothing else of the tree: the client, the words of the wire, the page itself. */
const servable = /^(client(\/[a-z]+)?|protocol|cli\/dev)\/[a-z-]+\.(ts|js)$/

const root = new URL('../../', import.meta.url)
/** `.ts` in the repository, `.js` in the published package. Imports name the file, so they need no rewriting. */
export const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'

/** @param path below src/ or dist/: `client/client.ts`
 *  @returns the module's text as JavaScript, or null when it is not for browsers or not there */
export async function browserModule(path: string): Promise<string | null> {
  if (!servable.test(path) || !path.endsWith(`.${extension}`)) return null
  const text = await readFile(new URL(path, root), 'utf8').catch(() => null)
  return text === null || extension === 'js' ? text : withoutTypes(text)
}

function withoutTypes(text: string): string {
  // Node warns that the function is experimental, once, on the terminal where our block stands. It strips as the loader
  // that runs this very file does.
  const { emitWarning } = process
  process.emitWarning = () => {}
  try {
    return stripTypeScriptTypes(text)
  } finally {
    process.emitWarning = emitWarning
  }
}
