import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { gapCodes, peerCodes, resyncCodes, warningCodes } from '../../../src/protocol/codes.ts'
import { parsePosition, parseQueryPositions, WHOLE_COMMIT } from '../../../src/protocol/position.ts'
import { options } from '../../../src/server/config/config.ts'
import { batchSchema, maxMessages, sendSchema } from '../../../src/server/deliver/channel-body.ts'
import { maxChars, maxTasks } from '../../../src/server/deliver/channel-lines.ts'
import { channelRequestOf, sendRequestOf } from '../../../src/server/deliver/channel-request.ts'
import { maxPage } from '../../../src/server/deliver/channel-requests.ts'
import { maxLast } from '../../../src/server/deliver/channel-schema.ts'
import { framesOfBody, openingSchema, pollingSchema, postingSchema } from '../../../src/server/deliver/frame-body.ts'
import {
  clientFrameSchema,
  eventShapes,
  joinedShape,
  serverFrameSchema,
} from '../../../src/server/deliver/frame-schema.ts'
import { defaultLimits } from '../../../src/server/deliver/limits.ts'
import { maxWaits } from '../../../src/server/deliver/session.ts'
import { requestOfFrame } from '../../../src/server/deliver/url.ts'

const text = readFileSync(new URL('../../../docs/protocol.md', import.meta.url), 'utf8')

const eventSchema = (event: string) => z.strictObject(eventShapes[event as keyof typeof eventShapes])
const polled = z
  .strictObject({ event: z.string(), data: z.unknown(), id: z.string().optional() })
  .refine(({ event, data }) => eventSchema(event).parse(data))
const answered = {
  events: z.array(polled),
  position: z.string().refine(position => parseQueryPositions(position) !== null),
}
const channelPosition = z.string().refine(position => parsePosition(position)?.index === WHOLE_COMMIT)
const published = z.strictObject({
  message: z.uuid(),
  position: channelPosition,
  duplicate: z.literal(true).optional(),
})
const schemas: Record<string, z.ZodType> = {
  client: clientFrameSchema,
  server: serverFrameSchema,
  ticket: z.strictObject({ ticket: z.string(), expiresAt: z.number() }),
  wait: z.strictObject({ position: z.string() }),
  poll: z.union([
    z.strictObject({
      ...answered,
      queries: z.array(z.strictObject({ key: z.array(z.string()), resumed: z.boolean() })),
    }),
    z.strictObject({
      ...answered,
      channels: z.array(z.strictObject(joinedShape)),
      connection: z.string(),
      poll: z.string(),
      here: z.string().optional(),
    }),
  ]),
  send: z.union([sendSchema, z.array(sendSchema)]),
  batch: batchSchema,
  stream: openingSchema,
  posting: postingSchema,
  polling: pollingSchema,
  polled: z.strictObject({ frames: z.array(serverFrameSchema), poll: z.string(), here: z.string().optional() }),
  published,
  results: z.strictObject({
    results: z.array(z.union([published, z.strictObject({ error: z.strictObject(eventShapes.error) })])),
  }),
  present: z.strictObject({ count: z.int(), members: eventShapes.presence.here.unwrap(), next: z.string().nullable() }),
  history: z.strictObject({
    messages: z.array(z.strictObject({ position: channelPosition, ...eventShapes.message })),
    position: channelPosition,
    next: channelPosition.nullable(),
    resync: z.strictObject(eventShapes.resync).optional(),
  }),
}
const examples = [...text.matchAll(/^```json (\w+)(?: (\w+))?\n(.*?)\n```$/gms)].map(match => ({
  kind: match[1]!,
  event: match[2],
  json: match[3]!,
}))

test.each(examples)('the example $json is what the schema says', ({ kind, event, json }) => {
  const schema = kind === 'event' ? eventSchema(event!) : schemas[kind]!
  expect(schema.parse(JSON.parse(json))).toEqual(JSON.parse(json))
  if (kind !== 'client') return
  const frame = clientFrameSchema.parse(JSON.parse(json))
  // The optional fields are there or not; as text they cannot be undefined.
  if (frame.type === 'subscribe') requestOfFrame(JSON.parse(json))
  if (frame.type === 'join') channelRequestOf(JSON.parse(json))
  if (frame.type === 'send') sendRequestOf(JSON.parse(json))
})

test('every frame and every event has an example, and every block of JSON is one', () => {
  const shown = (kind: string) =>
    new Set(examples.filter(example => example.kind === kind).map(example => JSON.parse(example.json).type))
  const types = (schema: { options: readonly { shape: { type: { value: string } } }[] }) =>
    new Set(schema.options.map(option => option.shape.type.value))
  expect(shown('client')).toEqual(types(clientFrameSchema))
  expect(shown('server')).toEqual(types(serverFrameSchema))
  const events = new Set(examples.filter(example => example.kind === 'event').map(example => example.event))
  expect(events).toEqual(new Set(Object.keys(eventShapes)))
  expect(text.match(/^```json/gm)).toHaveLength(examples.length)
})

test('the events shown as a stream are what the schema says too', () => {
  const blocks = [...text.matchAll(/^event: (\w+)\ndata: (.+)\n(?:id: (.+)\n)?/gm)]
  expect(blocks.length).toBeGreaterThan(3)
  for (const [, event, json, id] of blocks) {
    if (id !== undefined) expect(parseQueryPositions(id)).not.toBe(null)
    if (event === 'subscribed') continue
    const { q, c, ...data } = JSON.parse(json!)
    if (event === 'joined') {
      expect(z.strictObject({ connection: z.string(), ...joinedShape }).safeParse(data).error).toBe(undefined)
      continue
    }
    expect(eventSchema(event!).safeParse(data).error).toBe(undefined)
    for (const number of [q, c]) expect(number === undefined || Number.isInteger(number)).toBe(true)
  }
})

test('the stream without a WebSocket shows frames of the server, the welcome with where to send', () => {
  const lines = [...text.matchAll(/^data: (\{"type".+)$/gm)].map(([, json]) =>
    serverFrameSchema.parse(JSON.parse(json!)),
  )
  expect(lines.map(({ type }) => type)).toEqual(['welcome', 'subscribed'])
  expect(lines[0]).toHaveProperty('stream')
})

test('every code that the page names exists, and its limits are the defaults', () => {
  const known = { ...peerCodes, ...resyncCodes, ...gapCodes, ...warningCodes }
  for (const [, code] of text.matchAll(/`([A-Z]+(?:_[A-Z]+)+)`/g)) {
    expect(Object.hasOwn(known, code!) || Object.hasOwn(options, code!), code).toBe(true)
  }
  const { maxFrameBytes, maxSubscriptions, framesPerSecond, frameBurst, maxConnections } = defaultLimits
  expect([maxFrameBytes, maxSubscriptions, framesPerSecond, frameBurst, maxConnections]).toEqual([
    65_536, 100, 50, 200, 10_000,
  ])
  expect([framesOfBody * maxFrameBytes, defaultLimits.postWaitMs, maxWaits]).toEqual([256 * 1024, 8000, 16])
  expect([maxMessages, maxLast, maxPage, maxTasks, maxChars]).toEqual([100, 10_000, 1000, 64, 256 * 1024])
  const { handshakeMs, sendQueueBytes, maxTicketsPerPrincipal, slowConsumerMs, heartbeatMs } = defaultLimits
  expect([handshakeMs, sendQueueBytes, maxTicketsPerPrincipal, slowConsumerMs, heartbeatMs]).toEqual([
    10_000, 1_048_576, 20, 30_000, 25_000,
  ])
})
