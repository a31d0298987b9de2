import { expect, test } from 'vitest'
import { bundle, maxBytes, sizes } from '../../scripts/bundle-size.ts'
import { peerCodes } from '../../src/protocol/codes.ts'

test("the client is a page's smallest worry: minified and gzipped below its limit, and what few pages need comes later", async () => {
  const [first, ...rows] = await sizes()
  expect(first!.gzip).toBeLessThanOrEqual(maxBytes)
  const later = rows.filter(({ name }) => name.startsWith('  later '))
  const names = later.map(({ name }) => name.replace('  later ', ''))
  expect(names).toEqual(expect.arrayContaining(['channel-places', 'event-stream', 'long-poll', 'order', 'waits']))
  for (const { name, gzip } of later) expect(gzip, name).toBeLessThan(maxBytes / 3)
})

test('it imports nothing: what it needs, every browser has', async () => {
  const { code, imports } = await bundle(new URL('../../src/client/client.ts', import.meta.url).pathname)
  expect(imports).toEqual([])
  expect(code).not.toMatch(/\bnode:|\brequire\(|\bprocess\./)
  // Its refusals come with their words from the server.
  expect(code).not.toContain(peerCodes.ROLE_REFUSED.meaning)
})
