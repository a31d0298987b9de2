// Who a proxy says its client is, and by which scheme and host it came: X-Forwarded-For, -Proto and -Host, or Forwarded (RFC 7239).
//
// Anybody can send these headers, so they count only as far as trusted peers wrote them. Each proxy adds its own peer at the right:
// from there the addresses are walked to the left while they are trusted, and the first that is not is the client. What stands left
// of it the client may have made up.
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import { canonicalAddress, type TrustedProxies } from '../config/trusted-proxies.ts'

export interface Client {
  /** Canonical. */
  readonly address: string
  /** As the client asked for it; null where no trusted proxy says. */
  readonly proto: string | null
  readonly host: string | null
}

/** @param peer the address that the socket has */
export function clientOf(peer: string, headers: IncomingHttpHeaders, trusted: TrustedProxies): Client {
  const nearest = canonicalAddress(peer) ?? peer
  if (!trusted.has(nearest)) return { address: nearest, proto: null, host: null }
  const forwarded = forwardedElements(textOf(headers.forwarded))
  const last = forwarded.at(-1)
  return {
    address: addressOf(nearest, headers, forwarded, trusted),
    proto: (lastOf(textOf(headers['x-forwarded-proto'])) ?? last?.get('proto') ?? null)?.toLowerCase() ?? null,
    host: lastOf(textOf(headers['x-forwarded-host'])) ?? last?.get('host') ?? null,
  }
}

function addressOf(
  nearest: string,
  headers: IncomingHttpHeaders,
  forwarded: readonly ReadonlyMap<string, string>[],
  trusted: TrustedProxies,
): string {
  const list = listOf(textOf(headers['x-forwarded-for']))
  const standard = forwarded.map(element => element.get('for') ?? '')
  const [byList, byStandard] = [walk(nearest, list, trusted), walk(nearest, standard, trusted)]
  if (list.length === 0) return byStandard
  // A proxy that writes one of them passes on the other as the client sent it, and nobody can tell which that is.
  return forwarded.length === 0 || byList === byStandard ? byList : nearest
}

function walk(nearest: string, hops: readonly string[], trusted: TrustedProxies): string {
  let address = nearest
  for (const hop of hops.toReversed()) {
    if (!trusted.has(address)) break
    const next = canonicalAddress(hop)
    // `unknown`, or a name that hides it: nothing further is known.
    if (next === null) break
    address = next
  }
  return address
}

/** Leaves of these headers what is true, so that nobody behind need ask who wrote them: of an untrusted peer nothing; of a trusted one
 *  one address in X-Forwarded-For, one scheme, and the host in Host. */
export function settleForwarded(request: IncomingMessage, trusted: TrustedProxies): void {
  const { headers } = request
  const client = trusted.isEmpty ? null : clientOf(request.socket.remoteAddress ?? '', headers, trusted)
  for (const name of ['forwarded', 'x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host']) delete headers[name]
  if (client === null) return
  headers['x-forwarded-for'] = client.address
  if (client.proto !== null) headers['x-forwarded-proto'] = client.proto
  if (client.host !== null) headers.host = client.host
}

/** Of a request that `settleForwarded` has seen. @returns canonical; empty of a socket that is gone already */
export function clientAddressOf(request: IncomingMessage): string {
  const settled = request.headers['x-forwarded-for']
  if (typeof settled === 'string') return settled
  const peer = request.socket.remoteAddress ?? ''
  return canonicalAddress(peer) ?? peer
}

const textOf = (header: string | string[] | undefined): string =>
  Array.isArray(header) ? header.join(',') : (header ?? '')

const listOf = (text: string): string[] =>
  text
    .split(',')
    .map(part => part.trim())
    .filter(part => part !== '')

const lastOf = (text: string): string | undefined => listOf(text).at(-1)

/** `for=1.2.3.4;proto=https, for="[2001:db8::1]:80"`, each as a map of its pairs. What does not parse is left out. */
function forwardedElements(text: string): ReadonlyMap<string, string>[] {
  const elements: Map<string, string>[] = []
  // Commas and semicolons within quotes separate nothing.
  for (const [element] of text.matchAll(/(?:[^,"]|"(?:[^"\\]|\\.)*")+/g)) {
    const pairs = [...element.matchAll(/(?<=^|[;\s])([\w!#$%&'*+.^`|~-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))/g)]
    if (pairs.length === 0) continue
    elements.push(
      new Map(
        pairs.map(([, name, quoted, token]) => [name!.toLowerCase(), quoted?.replace(/\\(.)/g, '$1') ?? token ?? '']),
      ),
    )
  }
  return elements
}
