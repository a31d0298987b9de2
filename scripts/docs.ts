// Writes the pages that are read from the source: docs/configuration.md, docs/errors.md, docs/operations/* and the alarms of
// docs/operations.md from tables, docs/api/*.md from declarations. Run: npm run docs
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { clientCodes } from '../src/protocol/client-codes.ts'
import {
  type CodeEntry,
  closeCodeOf,
  type PeerCode,
  peerCodes,
  type Retry,
  resyncCodes,
  warningCodes,
  warningRemedies,
} from '../src/protocol/codes.ts'
import { operatorCodes } from '../src/protocol/operator-codes.ts'
import { flagOf, type Option, type OptionGroup, options } from '../src/server/config/config.ts'
import { withAlarms } from './alarms.ts'
import { alertsFile, alertsPage } from './alerts-page.ts'
import { apiPages } from './api.ts'
import { dashboard } from './dashboard.ts'
import { doctorPage } from './doctor-page.ts'
import { metricsPage } from './metrics-page.ts'

const groups: Record<OptionGroup, string> = {
  database: 'Database',
  listener: 'Listener',
  tokens: 'Tokens',
  supabase: "Supabase's wire",
  relay: 'Between nodes',
  stream: 'Stream and snapshots',
  channels: 'Channels',
  limits: 'Limits on clients',
  log: 'Log and traces',
}

export function configurationPage(): string {
  const rows = Object.entries(options) as [string, Option<unknown>][]
  const sections = Object.entries(groups).map(([group, title]) => [
    `## ${title}`,
    '',
    ...table(
      ['Environment', 'Flag', 'Type', 'Default', 'Meaning'],
      rows
        .filter(([, option]) => option.group === group)
        .map(([name, option]) => [code(name), code(flagOf(name)), option.type, defaultOf(option), option.help]),
    ),
  ])
  return page(
    '# Configuration',
    'Every option can be set in the environment or as a flag; the flag wins. An empty value counts as not set. A value that',
    'does not fit stops the start with [`CONFIG_INVALID`](errors.md), which names the option, its value and what fits;',
    'secrets are never printed. Give secrets in the environment: other users of a machine can read the flags of a process.',
    'Names tell their unit: `_MS` are milliseconds, `_BYTES` are bytes.',
    '',
    'This page is written by `npm run docs` from the table in `src/server/config/config.ts`.',
    ...sections.flatMap(section => ['', ...section]),
  )
}

function defaultOf({ default: text, isRequired, type }: Option<unknown>): string {
  if (isRequired) return 'required'
  if (text === null) return 'not set'
  if (text === '') return 'empty'
  const mebibytes = Number(text) / (1024 * 1024)
  const isWhole = type.startsWith('a whole number') && Number.isInteger(mebibytes) && mebibytes >= 1
  return isWhole ? `${code(text)} (${mebibytes} MiB)` : code(text)
}

const retries: Record<Retry, string> = {
  now: 'now',
  later: 'later, after `retryAfterMs`',
  never: 'no',
  token: 'with a new token',
}

export function errorsPage(): string {
  const peers = Object.entries(peerCodes) as [PeerCode, CodeEntry][]
  return page(
    '# Errors',
    'Every refusal has a stable code and a message that names the thing and its value. Programs compare codes; messages are',
    'for people and may change. On a WebSocket a refusal of one subscription is an `error` frame with its `id`; one of the',
    'connection closes it with the close code. On SSE and long-poll the HTTP status goes with a JSON body',
    '`{"code", "message", "retry", "retryAfterMs"}`.',
    '',
    'A client that knows no code does the right thing by the range of the close code:',
    '',
    ...table(
      ['Close code', 'What to do'],
      [
        ['40xx', 'connect again now'],
        ['41xx', 'connect again later'],
        ['42xx', 'do not come back'],
        ['43xx', 'renew the token, then connect'],
      ],
    ),
    '',
    'This page is written by `npm run docs` from the tables in `src/protocol/codes.ts` and `src/protocol/operator-codes.ts`.',
    '',
    '## What a client can meet',
    '',
    ...table(
      ['Code', 'Close code', 'Status', 'Retry', 'Meaning', 'Remedy'],
      peers.map(([name, entry]) => [
        code(name),
        String(closeCodeOf(name)),
        String(entry.status),
        retries[entry.retry],
        entry.meaning,
        entry.remedy,
      ]),
    ),
    '',
    '## Why a client starts over',
    '',
    'A `resync` is no error: what the client holds of that query is void, and a fresh snapshot follows by itself, on the same',
    'connection. No close code, no status.',
    '',
    ...table(['Code', 'Meaning'], pairs(resyncCodes)),
    '',
    '## Warnings',
    '',
    'They come with an accepted subscription and refuse nothing.',
    '',
    ...table(
      ['Code', 'Meaning', 'If it was not meant so'],
      Object.entries(warningRemedies).map(([name, remedy]) => [
        code(name),
        warningCodes[name as keyof typeof warningCodes],
        remedy,
      ]),
    ),
    '',
    '## What only the client says',
    '',
    "In the `error` of a query's state, beside the codes above: no server sends them. While the client comes back by itself,",
    'the status is `offline` or `catching up`.',
    '',
    ...table(
      ['Code', 'Meaning', 'Remedy'],
      Object.entries(clientCodes).map(([name, entry]) => [code(name), entry.meaning, entry.remedy]),
    ),
    '',
    '## What an operator can meet',
    '',
    'They stop a command with exit code 1, or stand in the log of a running server. Clients never see them.',
    '',
    ...table(
      ['Code', 'Meaning', 'Remedy'],
      Object.entries(operatorCodes).map(([name, entry]) => [code(name), entry.meaning, entry.remedy]),
    ),
  )
}

const page = (title: string, ...lines: readonly string[]): string => `${[title, '', ...lines].join('\n')}\n`
const code = (text: string): string => `\`${text}\``
const pairs = (entries: Readonly<Record<string, string>>): string[][] =>
  Object.entries(entries).map(([name, text]) => [code(name), text])

function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]): string => `| ${cells.map(cell => cell.replaceAll('|', '\\|')).join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)]
}

if (import.meta.main) {
  const docs = new URL('../docs/', import.meta.url)
  await writeFile(new URL('configuration.md', docs), configurationPage())
  await writeFile(new URL('errors.md', docs), errorsPage())
  await mkdir(new URL('operations/', docs), { recursive: true })
  await writeFile(new URL('operations/metrics.md', docs), metricsPage())
  await writeFile(new URL('operations/doctor.md', docs), doctorPage())
  await writeFile(new URL('operations/alerts.md', docs), alertsPage())
  await writeFile(new URL('operations/alerts.yml', docs), alertsFile())
  await writeFile(new URL('operations/grafana.json', docs), dashboard())
  const operations = new URL('operations.md', docs)
  await writeFile(operations, withAlarms(await readFile(operations, 'utf8')))
  await mkdir(new URL('api/', docs), { recursive: true })
  for (const [path, text] of apiPages().pages) await writeFile(new URL(path, docs), text)
  console.log(
    'wrote docs/configuration.md, docs/errors.md, docs/api/*.md, docs/operations/{metrics.md,doctor.md,alerts.md,alerts.yml,grafana.json} and the alarms of docs/operations.md',
  )
}
