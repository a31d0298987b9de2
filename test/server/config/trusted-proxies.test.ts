import fc from 'fast-check'
import { expect, test } from 'vitest'
import { loadOptions } from '../../../src/server/config/config.ts'
import {
  addressGroup,
  canonicalAddress,
  parseRanges,
  TrustedProxies,
} from '../../../src/server/config/trusted-proxies.ts'

test.each([
  ['1.2.3.4', '1.2.3.4'],
  ['1.2.3.4:80', '1.2.3.4'],
  ['::1', '::1'],
  ['[::1]', '::1'],
  ['[2001:DB8:0:0::1]:443', '2001:db8::1'],
  ['2001:db8:0:0:0:0:0:1', '2001:db8::1'],
  ['fe80::1%eth0', 'fe80::1'],
  ['::ffff:10.0.0.1', '10.0.0.1'],
  ['::ffff:a00:1', '10.0.0.1'],
  ['[::ffff:10.0.0.1]:5', '10.0.0.1'],
  ['unknown', null],
  ['_hidden', null],
  ['', null],
  ['1.2.3', null],
  ['01.2.3.4', null],
  ['1.2.3.4.', null],
  ['2001:db8::1:80000', null],
  ['app.example', null],
])('the address %s is %s', (text, address) => {
  expect(canonicalAddress(text)).toBe(address)
})

test.each([
  ['1.2.3.4', '1.2.3.4'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:db8::1', '2001:db8:0:0::/64'],
  ['::1', '0:0:0:0::/64'],
  ['2001:db8:1:2::', '2001:db8:1:2::/64'],
  ['2001:db8:1::5:6:7:8', '2001:db8:1:0::/64'],
])('%s counts as %s', (address, group) => {
  expect(addressGroup(address)).toBe(group)
})

const hextets = fc.array(fc.integer({ min: 0, max: 0xffff }), { minLength: 8, maxLength: 8 })
const written = (parts: readonly number[]): string => parts.map(part => part.toString(16)).join(':')

test('however an IPv6 address is written, its first 64 bits alone decide what it counts as', () => {
  fc.assert(
    fc.property(hextets, hextets, (one, other) => {
      const [first, second] = [one, [...one.slice(0, 4), ...other.slice(4)]].map(
        parts => canonicalAddress(written(parts))!,
      )
      expect(canonicalAddress(first!.toUpperCase())).toBe(first)
      // IPv4 within IPv6 is IPv4.
      fc.pre(!first!.includes('.') && !second!.includes('.'))
      expect(addressGroup(first!)).toBe(addressGroup(second!))
      const apart = canonicalAddress(written([...one.slice(0, 3), one[3]! ^ 1, ...one.slice(4)]))!
      if (!apart.includes('.')) expect(addressGroup(apart)).not.toBe(addressGroup(first!))
    }),
  )
})

test.each([
  ['10.0.0.0/8', '10.255.0.1', true],
  ['10.0.0.0/8', '11.0.0.1', false],
  ['10.0.0.5', '10.0.0.5', true],
  ['10.0.0.5', '10.0.0.6', false],
  ['fd00::/8', 'fd12::1', true],
  ['fd00::/8', 'fe12::1', false],
  ['loopback', '127.8.0.1', true],
  ['loopback', '::1', true],
  ['loopback', '10.0.0.1', false],
  ['private', '10.1.1.1', true],
  ['private', '172.31.255.255', true],
  ['private', '172.32.0.1', false],
  ['private', '192.168.1.1', true],
  ['private', 'fd00::1', true],
  ['private', '8.8.8.8', false],
  ['private', '127.0.0.1', false],
])('%s has %s: %s', (text, address, has) => {
  expect(new TrustedProxies(parseRanges(text)!).has(address)).toBe(has)
})

test.each([
  '0.0.0.0/0',
  '::/0',
  '10.0.0.0/33',
  'fd00::/129',
  '10.0.0.0/-1',
  '10.0.0.0/',
  'proxy.example',
  '1.2.3.4:80',
  '::ffff:10.0.0.0/104',
  '[::1]',
  'fe80::1%eth0/64x',
])('%s is no network of proxies', text => {
  expect(parseRanges(text)).toBe(null)
  expect(() => loadOptions(['TRUSTED_PROXIES'], { TRUSTED_PROXIES: text })).toThrow('TRUSTED_PROXIES is')
})

test('the option takes several', () => {
  const { trustedProxies } = loadOptions(['TRUSTED_PROXIES'], { TRUSTED_PROXIES: 'loopback, 10.1.0.0/16,2001:db8::7' })
  const proxies = new TrustedProxies(trustedProxies.flat())
  expect(['::1', '10.1.9.9', '2001:db8::7'].map(each => proxies.has(each))).toEqual([true, true, true])
  expect(['10.2.0.1', '2001:db8::8', 'nobody', ''].map(each => proxies.has(each))).toEqual([false, false, false, false])
})
