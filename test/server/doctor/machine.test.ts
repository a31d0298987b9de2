import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type Config, loadConfig } from '../../../src/server/config/config.ts'
import { roomWithin } from '../../../src/server/config/descriptors.ts'
import { descriptorFindings, machineFindings } from '../../../src/server/doctor/machine.ts'
import {
  lookAtMachine,
  lookAtSpool,
  type MachineLook,
  readOpenFilesLimit,
} from '../../../src/server/doctor/machine-look.ts'
import { RunningProcess } from '../../support/run-cli.ts'
import { findingOf, settingsOfRemedy } from './remedies.ts'

const MiB = 1024 * 1024
const given = { DATABASE_URL: 'postgres://127.0.0.1/app', JWT_SECRET: 'as good as random: 0123456789abcdef' }
const configOf = (settings: Record<string, string> = {}): Config => loadConfig({ ...given, ...settings })
const plain: MachineLook = {
  nodeVersion: '24.1.0',
  nodeNeeded: 24,
  openFiles: 100_000,
  memoryBytes: 8192 * MiB,
  spool: { folder: '/tmp', freeBytes: 10_000 * MiB, failure: null },
}
const look = (changes: Partial<MachineLook>, settings: Record<string, string> = {}) =>
  machineFindings(configOf(settings), { ...plain, ...changes })

test('a machine as it should be is ok in all', () => {
  expect(look({}).map(({ verdict }) => verdict)).toEqual(['ok', 'ok', 'ok', 'ok'])
})

const { neededFiles } = roomWithin({ maxConnections: 10_000, databasePool: 4 }, null)

test.each([
  [neededFiles, 'ok'],
  [neededFiles - 1, 'failure'],
  [null, 'ok'],
  [undefined, 'unknown'],
] as const)('descriptors: of %s files MAX_CONNECTIONS 10000 is %s', (openFiles, verdict) => {
  expect(descriptorFindings({ maxConnections: 10_000, databasePool: 4 }, openFiles)[0]!.verdict).toBe(verdict)
})

test('descriptors: a process that may open too few is told so, and under the limit of the remedy may', async () => {
  const script = `
    import { descriptorFindings } from ${JSON.stringify(new URL('../../../src/server/doctor/machine.ts', import.meta.url).href)}
    import { readOpenFilesLimit } from ${JSON.stringify(new URL('../../../src/server/doctor/machine-look.ts', import.meta.url).href)}
    console.log(JSON.stringify(descriptorFindings({ maxConnections: 900, databasePool: 4 }, readOpenFilesLimit())[0]))`
  const under = async (limit: string) => {
    // Through a shell, as somebody would type it.
    const shell = `const { execFileSync } = await import('node:child_process'); process.stdout.write(execFileSync('sh', ['-c', ${JSON.stringify(
      `${limit} && exec "$0" --input-type=module --eval "$1"`,
    )}, process.execPath, ${JSON.stringify(script)}]))`
    await using running = new RunningProcess(['--input-type=module', '--eval', shell])
    const { out, err } = await running.end()
    expect(err).toBe('')
    return JSON.parse(out)
  }
  const found = await under('ulimit -n 1024')
  expect(found).toMatchObject({
    verdict: 'failure',
    code: 'DESCRIPTORS_SHORT',
    remedy: { text: expect.stringMatching(/^ulimit -n \d+$/) },
  })
  expect(found.reason).toContain('1024')
  expect((await under(found.remedy.text)).verdict).toBe('ok')
})

test('the limit of files is read as the kernel says it', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'tidegate-limits-'))
  const file = join(folder, 'limits')
  await writeFile(
    file,
    'Limit   Soft Limit  Hard Limit  Units\nMax open files            unlimited            unlimited   files\n',
  )
  expect(readOpenFilesLimit(file)).toBe(null)
  await writeFile(file, 'Max processes 1 2 processes\n')
  expect([readOpenFilesLimit(file), readOpenFilesLimit(join(folder, 'none'))]).toEqual([undefined, undefined])
  await rm(folder, { recursive: true })
})

test('memory: whatever a machine has, the options of the remedy fit into it', async () => {
  // Less would need no options but another machine.
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 400, max: 4000 }),
      fc.constantFrom<Record<string, string>>({}, { MAX_CONNECTIONS: '100000' }, { WINDOW_MAX_BYTES: '1073741824' }),
      async (mebibytes, settings) => {
        const memoryBytes = mebibytes * MiB
        // The first remedy may leave room for less of the rest.
        let all = settings
        for (let round = 0; round < 4; round += 1) {
          const found = findingOf(look({ memoryBytes }, all), 'memory')
          if (found.verdict === 'ok') return
          all = { ...all, ...(await settingsOfRemedy(found)) }
        }
        expect.fail(`${mebibytes} MiB: ${JSON.stringify(all)}`)
      },
    ),
    { numRuns: 30 },
  )
})

test('memory: too little for the windows alone is a failure, too little for all at once a warning', () => {
  expect(findingOf(look({ memoryBytes: 300 * MiB }), 'memory').verdict).toBe('failure')
  expect(findingOf(look({ memoryBytes: 300 * MiB }), 'memory').reason).toContain('300 MiB')
  expect(findingOf(look({ memoryBytes: 600 * MiB }), 'memory').verdict).toBe('warning')
  expect(findingOf(look({ memoryBytes: 280 * MiB }), 'memory').remedy).toBe(null)
})

test('spool: a folder that is not there is a failure, a full one a warning', () => {
  const missing = lookAtSpool('/nowhere/at/all')
  const found = findingOf(look({ spool: missing }), 'spool')
  expect(found).toMatchObject({ verdict: 'failure', code: 'SPOOL_FAILED', remedy: { text: 'export TMPDIR=/var/tmp' } })
  expect(findingOf(look({ spool: lookAtSpool('/var/tmp') }), 'spool').verdict).not.toBe('failure')
  expect(findingOf(look({ spool: { ...plain.spool, freeBytes: 100 * MiB } }), 'spool').verdict).toBe('warning')
  expect(findingOf(look({ spool: { ...plain.spool, freeBytes: null } }), 'spool').verdict).toBe('unknown')
})

test('an older Node is a failure', () => {
  expect(findingOf(look({ nodeVersion: '22.20.0' }), 'node-version')).toMatchObject({
    verdict: 'failure',
    code: 'NODE_TOO_OLD',
  })
})

test('this machine can be looked at', () => {
  const found = machineFindings(configOf({ MAX_CONNECTIONS: '10' }), lookAtMachine())
  expect(found.map(({ check }) => check)).toEqual(['node-version', 'descriptors', 'memory', 'spool'])
  expect(found.filter(({ verdict }) => verdict === 'unknown')).toEqual([])
})
