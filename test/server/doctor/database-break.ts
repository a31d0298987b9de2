// Breaks a prerequisite, hears the doctor, does what it says to the letter, and hears it again.
import pg from 'pg'
import { expect } from 'vitest'
import { migrate } from '../../../src/cli/commands/migrate.ts'
import { loadConfig } from '../../../src/server/config/config.ts'
import { type DatabaseFindingsOptions, databaseFindings } from '../../../src/server/doctor/database.ts'
import type { Finding, Remedy, Verdict } from '../../../src/server/doctor/finding.ts'
import { eventually } from '../../support/eventually.ts'
import { runCli } from '../../support/run-cli.ts'
import { Lines } from '../admin/site.ts'

const secret = 'a-secret-of-this-test-that-is-long-enough-0123456789'

export type DoctorConfig = DatabaseFindingsOptions['config']

export class Patient {
  config: DoctorConfig
  readonly adminUrl: string
  readonly options: Omit<DatabaseFindingsOptions, 'config'>

  /** @param adminUrl who runs what the doctor says */
  constructor(
    urls: { readonly databaseUrl: string; readonly adminUrl: string },
    environment: Readonly<Record<string, string>> = {},
    options: Omit<DatabaseFindingsOptions, 'config'> = {},
  ) {
    this.adminUrl = urls.adminUrl
    this.config = loadConfig({ DATABASE_URL: urls.databaseUrl, JWT_SECRET: secret, ...environment })
    this.options = options
  }

  migrate(): Promise<unknown> {
    const { databaseUrl, tidegateName: name } = this.config
    return migrate({ databaseUrl, adminUrl: this.adminUrl, name }, new Lines())
  }

  findings(): Promise<Finding[]> {
    return databaseFindings({ ...this.options, config: this.config })
  }

  /** Of a check; `about` if it is told of several. */
  async finding(check: string, about?: string): Promise<Finding> {
    const found = await this.findings()
    const one = found.find(each => each.check === check && (about === undefined || each.about === about))
    return one ?? found.find(each => each.check === check) ?? missing(check, about, found)
  }

  /** Does what a remedy says, as its text stands. */
  async run(remedy: Remedy): Promise<void> {
    if (remedy.kind === 'sql') return this.sql(remedy.text)
    if (remedy.kind === 'shell') return this.shell(remedy.text)
    expect(remedy.kind).toBe('setting')
    const [, name = '', value = ''] = /^(\w+)=(.*)$/.exec(remedy.text)!
    const changed = loadConfig({ DATABASE_URL: this.config.databaseUrl, JWT_SECRET: secret, [name]: value })
    const key = name.toLowerCase().replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())
    this.config = { ...this.config, [key]: changed[key as keyof typeof changed] }
  }

  /** Line by line where no statement goes over several, as psql takes them. */
  async sql(text: string): Promise<void> {
    const client = new pg.Client({ connectionString: this.adminUrl })
    client.on('error', () => {})
    await client.connect()
    try {
      const lines = text.split('\n')
      if (lines.every(line => line.endsWith(';'))) for (const line of lines) await client.query(line)
      else await client.query(text)
    } finally {
      await client.end()
    }
  }

  /** As a shell splits it. */
  async shell(text: string): Promise<void> {
    for (const line of text.split('\n')) {
      const [program, ...args] = [...line.matchAll(/'([^']*)'|(\S+)/g)].map(match => match[1] ?? match[2]!)
      expect(program).toBe('tidegate')
      const { databaseUrl, tidegateName } = this.config
      const env = { DATABASE_URL: databaseUrl, ADMIN_DATABASE_URL: this.adminUrl, TIDEGATE_NAME: tidegateName }
      const { code, err } = await runCli(args, env)
      expect({ line, code, err: code === 0 ? '' : err }).toEqual({ line, code: 0, err: '' })
    }
  }
}

export interface Expected {
  readonly check: string
  readonly about?: string
  readonly verdict: Exclude<Verdict, 'ok'>
  readonly reason: RegExp
  readonly remedy: string | RegExp
}

/** The check is bad as expected; its remedy is run as it stands; the check is ok. */
export async function expectMended(patient: Patient, expected: Expected): Promise<void> {
  const { check, about, verdict, reason, remedy } = expected
  const found = await patient.finding(check, about)
  expect(found).toMatchObject({ check, verdict, ...(about === undefined ? {} : { about }) })
  expect(found.reason).toMatch(reason)
  expect(found.remedy?.text).toEqual(typeof remedy === 'string' ? remedy : expect.stringMatching(remedy))
  await patient.run(found.remedy!)
  // A reload of the configuration reaches sessions one after the other.
  await eventually(async () => {
    const after = (await patient.findings()).filter(
      each => each.check === check && (about === undefined || each.about === null || each.about === about),
    )
    expect(after.filter(each => each.verdict !== 'ok')).toEqual([])
  })
}

function missing(check: string, about: string | undefined, found: readonly Finding[]): never {
  throw new Error(`nothing was said of ${check} ${about ?? ''}: ${JSON.stringify(found, null, 1)}`)
}
