// Which pages may speak to us, and the CORS headers that tell their browsers. Pure.
// Without this check any page could open a WebSocket to a node inside its reader's network.

/** Exact origins (`https://app.example.com`); `*` for every origin but the literal "null", that sandboxed frames and files
 *  send. Empty: pages of the host that the request itself names. */
export type AllowedOrigins = readonly string[]

/** @param origin the Origin header; undefined is not a browser on another page, and passes
 *  @param isSecure a proxy of ours says that the client came over TLS: a page without it is another's */
export function isOriginAllowed(
  origin: string | undefined,
  host: string | undefined,
  allowed: AllowedOrigins,
  isSecure = false,
): boolean {
  if (origin === undefined) return true
  if (allowed.length > 0) return allowed.includes(origin) || (origin !== 'null' && allowed.includes('*'))
  return host !== undefined && sameHost(origin, host) && !(isSecure && origin.startsWith('http:'))
}

function sameHost(origin: string, host: string): boolean {
  if (!URL.canParse(origin)) return false
  const page = new URL(origin)
  // The page's scheme decides the default port: behind a proxy that ends TLS the Host header has none.
  const own = `${page.protocol}//${host}`
  return URL.canParse(own) && new URL(own).host === page.host
}

export function corsHeaders(origin: string | undefined): Record<string, string> {
  if (origin === undefined) return { Vary: 'Origin' }
  return {
    'Access-Control-Allow-Origin': origin,
    'Access-Control-Expose-Headers': 'Tidegate-Position, Tidegate-Stale, Retry-After',
    Vary: 'Origin',
  }
}

export const preflightHeaders: Readonly<Record<string, string>> = {
  'Access-Control-Allow-Methods': 'GET, POST, OPTIONS',
  'Access-Control-Allow-Headers': 'Authorization, Content-Type, Last-Event-ID, Cache-Control, Idempotency-Key',
  'Access-Control-Max-Age': '600',
}
