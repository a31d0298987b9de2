// The version of Tidegate that runs.
import { readFileSync } from 'node:fs'

// The same way up from src/ and from dist/.
const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
  version: string
}

export const release = version
