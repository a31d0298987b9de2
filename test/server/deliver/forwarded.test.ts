import type { IncomingHttpHeaders } from 'node:http'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { noProxies, parseRanges, TrustedProxies } from '../../../src/server/config/trusted-proxies.ts'
import { clientOf } from '../../../src/server/deliver/forwarded.ts'

const trusted = new TrustedProxies(['10.0.0.0/8', 'fd00::/8'].flatMap(text => parseRanges(text)!))
const address = (peer: string, headers: IncomingHttpHeaders): string => clientOf(peer, headers, trusted).address

test.each<[peer: string, header: string, client: string]>([
  ['10.0.0.1', '1.2.3.4', '1.2.3.4'],
  ['::ffff:10.0.0.1', '1.2.3.4', '1.2.3.4'],
  ['10.0.0.1', '6.6.6.6, 1.2.3.4', '1.2.3.4'],
  ['10.0.0.1', '6.6.6.6, 1.2.3.4, 10.0.0.2', '1.2.3.4'],
  ['10.0.0.1', '10.0.0.3, 10.0.0.2', '10.0.0.3'],
  ['10.0.0.1', '1.2.3.4:5678', '1.2.3.4'],
  ['fd00::1', '[2001:DB8::9]:5678', '2001:db8::9'],
  ['10.0.0.1', '2001:db8::9', '2001:db8::9'],
  ['10.0.0.1', '1.2.3.4, unknown', '10.0.0.1'],
  ['10.0.0.1', 'unknown, 10.0.0.2', '10.0.0.2'],
  ['10.0.0.1', '', '10.0.0.1'],
  ['10.0.0.1', ', ,', '10.0.0.1'],
  ['10.0.0.1', '1.2.3.4,', '1.2.3.4'],
  ['9.9.9.9', '1.2.3.4', '9.9.9.9'],
  ['9.9.9.9', '10.0.0.2', '9.9.9.9'],
])('of the peer %s with X-Forwarded-For "%s" the client is %s', (peer, header, client) => {
  expect(address(peer, { 'x-forwarded-for': header })).toBe(client)
})

test.each<[header: string, client: string]>([
  ['for=1.2.3.4', '1.2.3.4'],
  ['For="[2001:db8:cafe::17]:4711"', '2001:db8:cafe::17'],
  ['for=1.2.3.4;proto=https;by=10.0.0.1', '1.2.3.4'],
  ['for=6.6.6.6, for=1.2.3.4', '1.2.3.4'],
  ['for=6.6.6.6, for=1.2.3.4, for=10.0.0.2', '1.2.3.4'],
  ['for=_hidden, for=10.0.0.2', '10.0.0.2'],
  ['for="a, for=6.6.6.6", for=1.2.3.4', '1.2.3.4'],
  ['for=1.2.3.4, proto=https', '10.0.0.1'],
  ['nonsense', '10.0.0.1'],
  ['for="1.2.3.4', '10.0.0.1'],
])('of a proxy with Forwarded %s the client is %s', (header, client) => {
  expect(address('10.0.0.1', { forwarded: header })).toBe(client)
})

test('where both headers are there and disagree, neither is believed: one of them is as the client sent it', () => {
  expect(address('10.0.0.1', { 'x-forwarded-for': '1.2.3.4', forwarded: 'for=6.6.6.6' })).toBe('10.0.0.1')
  expect(address('10.0.0.1', { 'x-forwarded-for': '1.2.3.4', forwarded: 'for="1.2.3.4:80"' })).toBe('1.2.3.4')
})

test.each<[headers: IncomingHttpHeaders, proto: string | null, host: string | null]>([
  [{ 'x-forwarded-proto': 'https', 'x-forwarded-host': 'app.example' }, 'https', 'app.example'],
  [
    { 'x-forwarded-proto': 'http, HTTPS', 'x-forwarded-host': 'evil.example, app.example:8443' },
    'https',
    'app.example:8443',
  ],
  [{ forwarded: 'for=1.2.3.4;proto=https;host="app.example:8443"' }, 'https', 'app.example:8443'],
  [{}, null, null],
])('of a proxy with %j it came by %s to %s', (headers, proto, host) => {
  expect(clientOf('10.0.0.1', headers, trusted)).toMatchObject({ proto, host })
  expect(clientOf('9.9.9.9', headers, trusted)).toEqual({ address: '9.9.9.9', proto: null, host: null })
})

const octets = fc
  .tuple(fc.integer({ min: 11, max: 126 }), fc.nat(255), fc.nat(255), fc.nat(255))
  .map(parts => parts.join('.'))
const proxy = fc.tuple(fc.nat(255), fc.nat(255)).map(([a, b]) => `10.0.${a}.${b}`)
const anything = fc.oneof(octets, proxy, fc.string(), fc.constantFrom('unknown', 'for=1.1.1.1', '"', '[', '::'))

test('whatever a client writes into the header, its own address is found behind any number of trusted proxies', () => {
  fc.assert(
    fc.property(fc.array(anything), octets, fc.array(proxy), proxy, (made, client, hops, peer) => {
      const header = [...made, client, ...hops].join(', ')
      expect(address(peer, { 'x-forwarded-for': header })).toBe(client)
    }),
  )
})

test('whatever the headers are, a peer that is not trusted is itself, and none of them throws', () => {
  fc.assert(
    fc.property(octets, fc.string({ maxLength: 200 }), fc.string({ maxLength: 200 }), (peer, list, standard) => {
      const headers = {
        'x-forwarded-for': list,
        forwarded: standard,
        'x-forwarded-host': list,
        'x-forwarded-proto': list,
      }
      expect(clientOf(peer, headers, trusted)).toEqual({ address: peer, proto: null, host: null })
      expect(clientOf('10.0.0.1', headers, noProxies).address).toBe('10.0.0.1')
      expect(typeof address('10.0.0.1', headers)).toBe('string')
    }),
  )
})

test('a header as long as may be costs no more than a moment', () => {
  const long = 16_000
  for (const header of [
    'a'.repeat(long),
    'a='.repeat(long / 2),
    '"'.repeat(long),
    'for="\\'.repeat(long / 6),
    ','.repeat(long),
    ' '.repeat(long),
  ]) {
    const began = process.cpuUsage().user
    address('10.0.0.1', { forwarded: header })
    address('10.0.0.1', { 'x-forwarded-for': header })
    expect(process.cpuUsage().user - began).toBeLessThan(200_000)
  }
})
