// Runs the suites of one node over a journal: npm run test:relay -- standalone|sentinel|cluster [what vitest takes]
import { spawn } from 'node:child_process'

const kinds = ['standalone', 'sentinel', 'cluster']
const [kind = '', ...more] = process.argv.slice(2)
if (!kinds.includes(kind)) {
  console.error(`npm run test:relay -- ${kinds.join('|')} [files]; without files all of test/server`)
  process.exit(2)
}
const files = more.length > 0 ? more : ['test/server']
const env = { ...process.env, TEST_RELAY: kind }
spawn('vitest', ['run', ...files], { env, stdio: 'inherit' }).once('close', code => {
  process.exitCode = code ?? 1
})
