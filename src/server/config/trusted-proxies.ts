// Which peers are proxies of ours, whose word about their clients is taken, and how addresses are written and counted. Pure.
import { BlockList, isIP } from 'node:net'

/** Addresses of one network: `10.0.0.0` and 8. Both families; canonical. */
export interface AddressRange {
  readonly address: string
  readonly bits: number
}

const named: Readonly<Record<string, readonly string[]>> = {
  loopback: ['127.0.0.0/8', '::1/128'],
  // RFC 1918, RFC 6598 (shared by carriers and clouds), RFC 4193, and link-local of both families.
  private: [
    ...['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', '169.254.0.0/16'],
    ...['fc00::/7', 'fe80::/10'],
  ],
}

/** @param text an address, a network as `10.0.0.0/8`, `loopback` or `private`. @returns null for anything else */
export function parseRanges(text: string): readonly AddressRange[] | null {
  const texts = named[text]
  if (texts !== undefined) return texts.map(each => parseRange(each)!)
  const range = parseRange(text)
  return range === null ? null : [range]
}

function parseRange(text: string): AddressRange | null {
  const match = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text)
  const given = match?.[1] ?? ''
  const address = canonicalAddress(given)
  // An IPv4 network written within IPv6 would count its bits from elsewhere.
  if (address === null || given.includes('[') || isIP(address) !== isIP(given)) return null
  const all = isIP(address) === 4 ? 32 : 128
  const bits = match?.[2] === undefined ? all : Number(match[2])
  // All addresses: whoever comes could say who they are.
  return bits < 1 || bits > all ? null : { address, bits }
}

export class TrustedProxies {
  readonly #ranges = new BlockList()
  readonly isEmpty: boolean

  constructor(ranges: readonly AddressRange[]) {
    this.isEmpty = ranges.length === 0
    for (const { address, bits } of ranges) this.#ranges.addSubnet(address, bits, familyOf(address))
  }

  /** @param address canonical */
  has(address: string): boolean {
    return !this.isEmpty && isIP(address) !== 0 && this.#ranges.check(address, familyOf(address))
  }
}

export const noProxies = new TrustedProxies([])

/** One way of writing each address: IPv6 in short form and lower case, without zone; IPv4 within IPv6 as IPv4.
 *  @param text as sockets and headers have it, perhaps with a port: `1.2.3.4:80`, `[2001:DB8::1]:80`, `::ffff:1.2.3.4`
 *  @returns null for what is no address */
export function canonicalAddress(text: string): string | null {
  const bare = /^\[([^\]]*)\](?::\d{1,5})?$/.exec(text)?.[1] ?? /^([\d.]+):\d{1,5}$/.exec(text)?.[1] ?? text
  const address = bare.replace(/%.*$/, '')
  if (isIP(address) === 4) return address
  if (isIP(address) !== 6) return null
  const short = new URL(`http://[${address}]`).hostname.slice(1, -1)
  const mapped = /^::ffff:([\da-f]{1,4}):([\da-f]{1,4})$/.exec(short)
  if (mapped === null) return short
  const [high, low] = [Number.parseInt(mapped[1]!, 16), Number.parseInt(mapped[2]!, 16)]
  return [high >> 8, high & 255, low >> 8, low & 255].join('.')
}

/** What a limit per address counts by: of IPv6 the first 64 bits, since one subscriber's line has all the rest.
 *  @param address canonical */
export function addressGroup(address: string): string {
  if (isIP(address) !== 6) return address
  const [head = '', tail = ''] = address.split('::')
  const [left, right] = [head, tail].map(part => (part === '' ? [] : part.split(':'))) as [string[], string[]]
  const zeros = address.includes('::') ? new Array<string>(8 - left.length - right.length).fill('0') : []
  return `${[...left, ...zeros, ...right].slice(0, 4).join(':')}::/64`
}

const familyOf = (address: string): 'ipv4' | 'ipv6' => (isIP(address) === 4 ? 'ipv4' : 'ipv6')
