// The way of a commit, as a collector of traces is told it by a real node over HTTP.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdir, mkdtemp, readdir, rm, symlink } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { stages } from '../../../src/server/figures/stage.ts'
import { tracingPackages } from '../../../src/server/tracing/packages.ts'
import { LiveSse, person, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { expectWithin } from '../../support/within.ts'

interface Attribute {
  readonly key: string
  readonly value: {
    readonly stringValue?: string
    readonly intValue?: number
    readonly arrayValue?: { readonly values: readonly { readonly stringValue: string }[] }
  }
}

interface Span {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly name: string
  readonly startTimeUnixNano: string
  readonly endTimeUnixNano: string
  readonly attributes: readonly Attribute[]
}

/** Takes OTLP over HTTP as JSON. Source: opentelemetry-proto, trace/v1/trace.proto */
class Collector implements AsyncDisposable {
  readonly #server: Server
  readonly spans: Span[] = []
  readonly resources: (readonly Attribute[])[] = []
  readonly paths = new Set<string>()
  readonly bodies: string[] = []
  /** Answers 500 as long as it is so. */
  isBroken = false
  /** Never answers as long as it is so. */
  isSilent = false
  refused = 0

  constructor() {
    this.#server = createServer(async (request, response) => {
      let body = ''
      for await (const chunk of request.setEncoding('utf8')) body += chunk
      if (this.isSilent) return
      if (this.isBroken) {
        this.refused += 1
        response.writeHead(500).end('no')
        return
      }
      this.paths.add(`${request.method} ${request.url}`)
      this.bodies.push(body)
      const { resourceSpans } = JSON.parse(body) as {
        resourceSpans: { resource: { attributes: Attribute[] }; scopeSpans: { spans: Span[] }[] }[]
      }
      for (const { resource, scopeSpans } of resourceSpans) {
        this.resources.push(resource.attributes)
        this.spans.push(...scopeSpans.flatMap(({ spans }) => spans))
      }
      response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
    })
  }

  static async open(): Promise<Collector> {
    const collector = new Collector()
    collector.#server.listen(0, '127.0.0.1')
    await once(collector.#server, 'listening')
    return collector
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** Roots of commits of that table. */
  roots(table: string): Span[] {
    return this.spans.filter(
      span => span.name === 'commit' && JSON.stringify(attributesOf(span)['tidegate.tables']).includes(table),
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
  }
}

const attributesOf = ({ attributes }: Pick<Span, 'attributes'>): Record<string, unknown> =>
  Object.fromEntries(
    attributes.map(({ key, value: { stringValue, intValue, arrayValue } }) => [
      key,
      arrayValue === undefined ? (stringValue ?? intValue) : arrayValue.values.map(each => each.stringValue),
    ]),
  )

const ada = person()
let database: TestDatabase
let collector: Collector
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members VALUES (1, '${ada}')`)
  collector = await Collector.open()
  node = await TestNode.start(database.url, {
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    OTEL_SERVICE_NAME: 'of-this-test',
    TRACES_PER_SECOND: '3',
  })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await collector?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

const count = (fate: string): number => node.server.figures.traces.of(fate)

test('a commit that reaches a reader is a trace: one span for it, and one within it for each stage', async () => {
  using live = await (await LiveSse.open(node, '/v1/live/messages', await tokenFor(ada))).exact()
  const isTraced = (): boolean => collector.roots('public.messages').length > 0
  // What a node commits as it starts may have used up the traces of its second.
  for (let id = 1; !isTraced(); id += 2) {
    await database.query(
      `INSERT INTO messages VALUES (${id}, 1, 'w', 'a value nobody else may know'), (${id + 1}, 1, 'w', 'another')`,
    )
    await live.stream.waitFor(() => live.rows.rows.size === id + 1)
    for (let times = 0; times < 30 && !isTraced(); times++) await sleep(100)
  }
  const [root] = collector.roots('public.messages')
  const spans = collector.spans.filter(({ traceId }) => traceId === root!.traceId)
  const within = spans.filter(({ parentSpanId }) => parentSpanId === root!.spanId)
  expect(root!.parentSpanId ?? '').toBe('')
  expect(within.map(({ name }) => name)).toEqual([...stages])
  expect(spans).toHaveLength(1 + stages.length)
  expect(attributesOf(root!)).toMatchObject({
    'tidegate.tables': ['public.messages'],
    'tidegate.changes': 2,
    'tidegate.decisions': 2,
    'tidegate.audiences': 1,
    'tidegate.deliveries': 1,
  })
  const { 'tidegate.lsn': lsn, 'tidegate.xid': xid, 'tidegate.bytes': bytes } = attributesOf(root!)
  expect(lsn).toMatch(/^[0-9A-F]+\/[0-9A-F]+$/)
  const written = await database.query<{ xid: string }>('SELECT DISTINCT xmin::text AS xid FROM messages')
  expect(written).toContainEqual({ xid: String(xid) })
  expect(bytes).toBeGreaterThan(20)
  for (const { startTimeUnixNano, endTimeUnixNano } of within) {
    expect(BigInt(endTimeUnixNano)).toBeGreaterThanOrEqual(BigInt(startTimeUnixNano))
    expect(BigInt(startTimeUnixNano)).toBeGreaterThanOrEqual(BigInt(root!.startTimeUnixNano))
    expect(BigInt(endTimeUnixNano)).toBeLessThanOrEqual(BigInt(root!.endTimeUnixNano))
  }
  const ago = Date.now() - Number(BigInt(root!.startTimeUnixNano) / 1_000_000n)
  expect(Math.abs(ago)).toBeLessThan(60_000)
  expect([...collector.paths]).toEqual(['POST /v1/traces'])
  expect(attributesOf({ attributes: collector.resources[0]! })).toMatchObject({ 'service.name': 'of-this-test' })
  await expect.poll(() => count('sent')).toBeGreaterThan(0)
  expect(collector.bodies.join()).not.toContain('nobody else')
  expect(collector.bodies.join()).not.toContain(ada)
})

test('of many commits only so many a second are traced; the others are counted', async () => {
  await database.query(
    'DO $$ BEGIN FOR i IN 1..4000 LOOP INSERT INTO rooms VALUES (i, $x$r$x$); COMMIT; END LOOP; END $$',
  )
  await expect.poll(() => count('skipped')).toBeGreaterThan(0)
  await expect.poll(() => collector.roots('public.rooms').length).toBeGreaterThan(0)
  expect(collector.roots('public.rooms').length).toBeLessThan(4000)
})

test('a collector that fails, or never answers, loses traces and harms nothing; it is told once, and when it is over', async () => {
  const lines: string[] = []
  const told = (text: string): number => lines.filter(line => line.includes(text)).length
  await using other = await TestDatabase.create()
  await prepareDatabase(other, roomsSchema, ['rooms', 'members', 'messages'])
  await other.query(`INSERT INTO members VALUES (1, '${ada}')`)
  await using failing = await Collector.open()
  failing.isBroken = true
  const record = (fields: unknown, text?: string): void => void lines.push(JSON.stringify([fields, text]))
  await using node = await TestNode.start(
    other.url,
    { OTEL_EXPORTER_OTLP_ENDPOINT: failing.url, BEACON_MS: '200' },
    { debug: () => {}, info: record, warn: record, error: record },
  )
  const { traces } = node.server.figures
  await expect.poll(() => traces.of('lost')).toBeGreaterThan(1)
  expect(told('TRACING_UNREACHABLE')).toBe(1)
  using live = await (await LiveSse.open(node, '/v1/live/messages', await tokenFor(ada))).exact()
  await other.query(`INSERT INTO messages VALUES (1, 1, 'w', 'b')`)
  await live.stream.waitFor(() => live.rows.rows.size === 1)
  failing.isBroken = false
  await expect.poll(() => traces.of('sent')).toBeGreaterThan(0)
  await expect.poll(() => told('traces are sent again')).toBe(1)
  expect(told('TRACING_UNREACHABLE')).toBe(1)
  // With one that takes requests and never answers it stops all the same.
  failing.isSilent = true
  await other.query(`INSERT INTO messages VALUES (2, 1, 'w', 'b')`)
  await live.stream.waitFor(() => live.rows.rows.size === 2)
  live.stream.close()
  const began = performance.now()
  await node.server.stop()
  expectWithin(performance.now() - began, 6000)
})

const root = fileURLToPath(new URL('../../../', import.meta.url))

test('without the packages a start says which to install', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'tidegate-untraced-'))
  try {
    await cp(join(root, 'src'), join(folder, 'src'), { recursive: true })
    await mkdir(join(folder, 'node_modules'))
    for (const name of await readdir(join(root, 'node_modules')))
      if (name !== '@opentelemetry' && !name.startsWith('.'))
        await symlink(join(root, 'node_modules', name), join(folder, 'node_modules', name))
    await cp(join(root, 'package.json'), join(folder, 'package.json'))
    const { code, output } = await outcome(
      spawn(process.execPath, ['src/cli/main.ts', 'start'], {
        cwd: folder,
        env: {
          ...process.env,
          DATABASE_URL: database.url,
          JWT_SECRET: 'a secret of at least 32 bytes, which signs tokens',
          PORT: '0',
          OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
        },
      }),
    )
    expect(output).toContain('TRACING_MISSING')
    expect(output).toContain(`npm install ${tracingPackages.join(' ')}`)
    expect(code).toBe(1)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})

async function outcome(child: ChildProcess): Promise<{ code: number | null; output: string }> {
  let output = ''
  for (const stream of [child.stdout!, child.stderr!]) stream.on('data', data => (output += data))
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, output }
}
