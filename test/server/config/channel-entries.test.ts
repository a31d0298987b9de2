import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseChannelEntries } from '../../../src/server/config/channel-entries.ts'
import { loadConfig } from '../../../src/server/config/config.ts'
import { matchesTopic } from '../../../src/server/config/topic-pattern.ts'

const parse = (entries: unknown) => parseChannelEntries(JSON.stringify(entries))

test('an entry says what differs, durations in milliseconds', () => {
  const written = [
    { pattern: 'room:*', history: { length: 100, age: '24h' }, presence: { grace: '3s', diff: 250, listUpTo: 50 } },
    { pattern: 'cursor:*', backpressure: 'latest', presence: false, rate: { perSecond: 0.5, burst: 1 } },
    { pattern: 'news', public: true, history: false, presence: true, maxPayloadBytes: 100, idempotency: '1m' },
  ]
  expect(parse(written)).toEqual({
    entries: [
      {
        pattern: 'room:*',
        history: { length: 100, ageMs: 86_400_000 },
        presence: { graceMs: 3000, diffMs: 250, listUpTo: 50 },
      },
      { pattern: 'cursor:*', backpressure: 'latest', presence: false, rate: { perSecond: 0.5, burst: 1 } },
      {
        ...{ pattern: 'news', public: true, history: false, presence: true },
        ...{ maxPayloadBytes: 100, idempotencyMs: 60_000 },
      },
    ],
  })
  expect(parse([])).toEqual({ entries: [] })
})

test.each([
  ['1ms', null],
  ['1000ms', 1000],
  ['90s', 90_000],
  ['10m', 600_000],
  ['24h', 86_400_000],
  ['7d', 604_800_000],
  [1000, 1000],
  ['8d', null],
  [999, null],
  [1000.5, null],
  ['1.5h', null],
  ['24 h', null],
  ['24H', null],
  ['1000', null],
  ['-1h', null],
  ['999999999d', null],
  ['', null],
  [null, null],
])('an age of %j is %j milliseconds', (age, ms) => {
  const parsed = parse([{ pattern: 'a', history: { length: 1, age } }])
  if (ms !== null) expect(parsed.entries).toEqual([{ pattern: 'a', history: { length: 1, ageMs: ms } }])
  else
    expect(parsed.refusals).toEqual([
      `entry 1 ("a"): history.age is ${JSON.stringify(age)}; it takes a duration from 1s to 7d, as "24h", "10m", "90s" or milliseconds`,
    ])
})

test.each<[unknown, string]>([
  [{}, 'it takes a list: [{"pattern": "room:*", ...}, ...]'],
  ['room:*', 'it takes a list: [{"pattern": "room:*", ...}, ...]'],
  [[null], 'entry 1 is null; it takes an object as {"pattern": "room:*", ...}'],
  [[{ pattern: 'a' }, []], 'entry 2 is []; it takes an object'],
  [[{}], 'entry 1 has no pattern; it takes a topic of 1 to 255 characters'],
  [[{ pattern: '' }], 'entry 1 (""): pattern is ""; it takes a topic'],
  [[{ pattern: 'a'.repeat(256) }], `pattern is "${'a'.repeat(76)}...; it takes`],
  [[{ pattern: 'a\nb' }], String.raw`pattern is "a\nb"; it takes`],
  [[{ pattern: 'a\u0085b' }], 'without control characters'],
  [[{ pattern: '*********' }], 'at most 8 times'],
  [[{ pattern: 'a', histroy: {} }], 'entry 1 ("a") has an unknown field: histroy'],
  [[{ pattern: 'a', history: true }], 'history is true; it takes false, or {"length": 100, "age": "24h"}'],
  [[{ pattern: 'a', history: { length: 1 } }], 'entry 1 ("a") has no history.age; it takes a duration'],
  [[{ pattern: 'a', history: { length: 0, age: '1h' } }], 'history.length is 0; it takes a whole number from 1'],
  [[{ pattern: 'a', history: { length: 1, age: '1h', size: 1 } }], ': history has an unknown field: size'],
  [[{ pattern: 'a', presence: 'no' }], 'presence is "no"; it takes true, false, or an object'],
  [[{ pattern: 'a', presence: { graceMs: 1 } }], ': presence has an unknown field: graceMs'],
  [[{ pattern: 'a', presence: { boundToSubject: 0 } }], 'presence.boundToSubject is 0; it takes true or false'],
  [[{ pattern: 'a', backpressure: 'drop' }], 'backpressure is "drop"; it takes one of buffer, drop-oldest, latest'],
  [[{ pattern: 'a', public: null }], 'public is null; it takes true or false'],
  [[{ pattern: 'a', rate: 5 }], 'rate is 5; it takes an object as {"perSecond": 20, "burst": 60}'],
  [[{ pattern: 'a', rate: { perSecond: 5 } }], 'has no rate.burst; it takes a whole number'],
  [[{ pattern: 'a', rate: { perSecond: 0, burst: 1 } }], 'rate.perSecond is 0; it takes a number from 0.01'],
  [[{ pattern: 'a', bufferBytes: '1MiB' }], 'bufferBytes is "1MiB"; it takes a whole number from 1024'],
  [[{ pattern: '*' }, { pattern: 'a' }], 'entry 2 ("a") is never used, since "*" before it matches all its topics'],
  [[{ pattern: 'a:*' }, { pattern: 'a:b:*' }], 'entry 2 ("a:b:*") is never used, since "a:*"'],
  [[{ pattern: 'a' }, { pattern: 'a' }], 'entry 2 ("a") is never used, since "a" before it'],
  [Array.from({ length: 1001 }, (_, i) => ({ pattern: `${i}` })), 'it has 1001 entries; at most 1000 fit'],
])('[P8] %j is refused by entry and field', (written, refusal) => {
  const { refusals = [] } = parse(written)
  expect(refusals).toHaveLength(1)
  expect(refusals[0]).toContain(refusal)
})

test('[P8] everything that does not fit is told at once', () => {
  const { refusals } = parse([{ pattern: 'a', rate: 1, public: 2 }, { pattern: '' }])
  expect(refusals).toHaveLength(3)
})

test('what is not JSON is refused', () => {
  expect(parseChannelEntries('[{]').refusals?.[0]).toMatch(/^it is not JSON: /)
})

const text = fc.string({ unit: fc.constantFrom('a', 'b', ':', '*'), minLength: 1, maxLength: 8 })
const topic = fc.string({ unit: fc.constantFrom('a', 'b', ':'), maxLength: 10 })

test('an entry is called unused only if no topic is left to it', () => {
  fc.assert(
    fc.property(text, text, fc.array(topic, { maxLength: 50 }), (first, second, topics) => {
      const { refusals } = parse([{ pattern: first }, { pattern: second }])
      if (refusals === undefined) return
      for (const given of topics) if (matchesTopic(second, given)) expect(matchesTopic(first, given)).toBe(true)
    }),
  )
})

test('whatever is written, the answer is entries or sentences that name the entry', () => {
  const value = fc.oneof(fc.jsonValue(), fc.constantFrom<unknown>('1h', 5, true, { length: 5, age: '1h' }))
  const fields = ['pattern', 'public', 'history', 'presence', 'rate', 'backpressure', 'bufferBytes', 'idempotency', 'x']
  const written = fc.array(fc.dictionary(fc.constantFrom(...fields), value), { maxLength: 3 })
  fc.assert(
    fc.property(written, given => {
      const { entries, refusals } = parse(given)
      if (entries !== undefined) expect(entries).toHaveLength(given.length)
      else for (const refusal of refusals) expect(refusal).toMatch(/^entry [123]\b/)
    }),
  )
})

const least = { DATABASE_URL: 'postgres://me@db/app', JWT_SECRET: 'a secret of more than thirty-two bytes' }
const list = '[{"pattern": "room:*", "public": true}]'

test('the list is an option, or a file that an option names', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'channels-'))
  try {
    const path = join(folder, 'channels.json')
    await writeFile(path, `\ufeff${list}\n`)
    expect(loadConfig(least).channels).toEqual([])
    expect(loadConfig({ ...least, CHANNELS: list }).channels).toEqual([{ pattern: 'room:*', public: true }])
    expect(loadConfig({ ...least, CHANNELS_FILE: path }).channels).toEqual([{ pattern: 'room:*', public: true }])
    expect(loadConfig(least, { channelsFile: path }).channels).toHaveLength(1)

    expect(() => loadConfig({ ...least, CHANNELS: list, CHANNELS_FILE: path })).toThrow(
      `CHANNELS and CHANNELS_FILE (${path}) are both set; set one of them`,
    )
    await writeFile(path, '[{"pattern": "a", "public": 1}, {"pattern": "b", "rate": 2}]')
    expect(() => loadConfig(least, { channelsFile: path })).toThrow(
      `--channels-file (${path}): entry 1 ("a"): public is 1; it takes true or false\n--channels-file (${path}): entry 2 ("b"): rate is 2`,
    )
    expect(() => loadConfig({ ...least, CHANNELS_FILE: folder })).toThrow(/cannot be read: EISDIR/)
    expect(() => loadConfig({ ...least, CHANNELS_FILE: join(folder, 'none') })).toThrow(/cannot be read: ENOENT/)
  } finally {
    await rm(folder, { recursive: true })
  }
})

test('[P8] a list that does not fit is refused beside other options, by entry and field', () => {
  const refused = () => loadConfig({ ...least, PORT: 'x', CHANNELS: '[{"pattern": "a", "publc": true}]' })
  expect(refused).toThrow(/PORT is "x"/)
  expect(refused).toThrow(/^CHANNELS: entry 1 \("a"\) has an unknown field: publc$/m)
  expect(refused).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }))
})
