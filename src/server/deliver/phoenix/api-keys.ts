// Keys of Supabase's new kind: no JWTs, each stands for a database role.
import { createHash, timingSafeEqual } from 'node:crypto'
import type { ApiKey } from '../../config/config.ts'
import type { Principal } from '../../subscribe/subscription.ts'

/** What the configuration says of Supabase's wire. */
export interface SupabaseOptions {
  readonly apiKeys: ApiKeys
  /** Public channels take neither joins nor messages on this wire. */
  readonly isPrivateOnly: boolean
}

/** The keys of one configuration: at most as many as API_KEYS takes. */
export class ApiKeys {
  readonly #entries: readonly { readonly digest: Buffer; readonly principal: Principal }[]

  constructor(keys: readonly ApiKey[]) {
    this.#entries = keys.map(({ key, role }) => ({
      digest: digestOf(key),
      principal: { role, claims: { role }, expiresAt: null },
    }))
  }

  /** Null: it is no key of these. Takes as long for every key, so that none can be guessed from the time it takes. */
  principalOf(key: string): Principal | null {
    const digest = digestOf(key)
    let found: Principal | null = null
    for (const entry of this.#entries) if (timingSafeEqual(entry.digest, digest)) found = entry.principal
    return found
  }
}

export const noSupabase: SupabaseOptions = { apiKeys: new ApiKeys([]), isPrivateOnly: false }

const digestOf = (key: string): Buffer => createHash('sha256').update(key).digest()
