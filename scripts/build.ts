// Makes dist/, what the published package runs: the sources as JavaScript with types, and everything beside them that is
// no source (pages). Run: npm run build
import { spawnSync } from 'node:child_process'
import { chmod, cp, rm } from 'node:fs/promises'
import { extname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../', import.meta.url))
const dist = join(root, 'dist')

await rm(dist, { recursive: true, force: true })
const compiler = join(root, 'node_modules/typescript/bin/tsc')
const { status } = spawnSync(process.execPath, [compiler, '-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' })
if (status !== 0) process.exit(status ?? 1)
// Copied after compiling: a page without its script would look built.
await cp(join(root, 'src'), dist, { recursive: true, filter: path => extname(path) !== '.ts' })
await chmod(join(dist, 'cli/main.js'), 0o755)
console.log('built dist/')
