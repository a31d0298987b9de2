import { expect, test } from 'vitest'
import { bundle, maxBytes, sizes } from '../../scripts/bundle-size.ts'
import { peerCodes } from '../../src/protocol/codes.ts'

test("the client is a page's smallest worry: minified and gzipped below its limit, each transport a part of it", async () => {
  const [whole, ...parts] = await sizes()
  expect(whole!.gzip).toBeLessThanOrEqual(maxBytes)
  for (const part of parts) expect(part.gzip, part.name).toBeGreaterThan(100)
})

test('it imports nothing: what it needs, every browser has', async () => {
  const { code, imports } = await bundle(new URL('../../src/client/client.ts', import.meta.url).pathname)
  expect(imports).toEqual([])
  expect(code).not.toMatch(/\bnode:|\brequire\(|\bprocess\./)
  // Its refusals come with their words from the server.
  expect(code).not.toContain(peerCodes.ROLE_REFUSED.meaning)
})
