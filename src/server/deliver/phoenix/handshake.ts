// How a client of Supabase's wire comes in: its key in the URL or a header, a JWT or a key of API_KEYS, and the version it speaks.
import type { IncomingMessage } from 'node:http'
import { peerCodes } from '../../../protocol/codes.ts'
import { TidegateError } from '../../../protocol/tidegate-error.ts'
import type { Principal } from '../../subscribe/subscription.ts'
import { admit, admitPrincipal } from '../admit.ts'
import type { Refusal } from '../refusal.ts'
import type { Services } from '../services.ts'
import type { Vsn } from './wire.ts'

type Door = Pick<Services, 'authenticator' | 'subscriptions' | 'orders' | 'wallNow' | 'supabase'>

/** @throws TOKEN_MISSING, PARAMETER_INVALID for a version that is not spoken here, and what `principalOfToken` throws */
export async function handshakeOf(
  door: Door,
  request: IncomingMessage,
  parameters: URLSearchParams,
): Promise<{ readonly principal: Principal; readonly vsn: Vsn }> {
  const vsn = vsnOf(parameters.get('vsn'))
  const key = apiKeyOf(request, parameters)
  if (key === null) throw new TidegateError('TOKEN_MISSING', 'API key is missing')
  return { principal: await principalOfToken(door, key), vsn }
}

/** The header wins. */
function apiKeyOf(request: IncomingMessage, parameters: URLSearchParams): string | null {
  const header = request.headers['x-api-key']
  return (typeof header === 'string' ? header.trim() : '') || parameters.get('apikey') || null
}

/** Of a connection, a join or an `access_token`: a JWT, or a key of API_KEYS.
 *  @throws TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_REVOKED, TOKEN_OUTDATED, ROLE_REFUSED, UNAVAILABLE */
export async function principalOfToken(door: Door, token: string): Promise<Principal> {
  if (!isApiKey(token)) return admit(door, token)
  const principal = door.supabase.apiKeys.principalOf(token)
  if (principal === null) throw new TidegateError('TOKEN_INVALID', 'the key is none of API_KEYS')
  await admitPrincipal(door, principal)
  return principal
}

/** It stands for a role, never for a person. */
export const isApiKey = (token: string): boolean => token.startsWith('sb_')

const spoken: Readonly<Record<string, Vsn>> = { '1.0': '1.0.0', '2.0': '2.0.0' }

/** `1.0.x` and `2.0.x`. */
function vsnOf(text: string | null): Vsn {
  if (text === null || text === '') return '1.0.0'
  const vsn = spoken[/^(\d+\.\d+)\.\d+$/.exec(text)?.[1] ?? '']
  if (vsn !== undefined) return vsn
  throw new TidegateError(
    'PARAMETER_INVALID',
    `vsn=${JSON.stringify(text.slice(0, 20))} is not spoken here: 1.0.0 or 2.0.0`,
  )
}

/** What who is refused before its connection stands is answered: Supabase's status and `error`, and our code beside it. */
export function handshakeRefusal({ code, message }: Refusal): { readonly status: number; readonly body: string } {
  return { status: statuses[code] ?? peerCodes[code].status, body: JSON.stringify({ error: message, code }) }
}

/** Where Supabase's differ from ours. */
const statuses: Partial<Record<Refusal['code'], number>> = { PARAMETER_INVALID: 403, TOO_MANY_CONNECTIONS: 429 }
