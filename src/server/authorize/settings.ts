// The settings through which policies read claims: the same for what is judged here and for what Postgres is asked.

/** What a verified token says. */
export interface Claimant {
  readonly role: string
  readonly claims: Readonly<Record<string, unknown>>
}

export interface ClaimSetting {
  /** `app.tenant_id`, in lower case. */
  readonly setting: string
  /** A claim's name, or a path of names: `app_metadata.tenant`. */
  readonly claim: string
}

export interface SettingsOptions {
  readonly claimSettings: readonly ClaimSetting[]
}

/** Names Postgres takes for a setting of one's own, after `request.jwt.claim.`. */
const settingName = /^[A-Za-z_\x80-\uffff][\w$\x80-\uffff]*$/

/** What to apply with set_config(name, value, true) before a query is run for this principal, in this order: the role
 *  last, because it may not be allowed to set the others.
 *
 *  A configured setting without its claim is set to '', as in any pooled session where it was set once: otherwise it
 *  would be NULL or '' depending on which connection ran the query. */
export function settingsList(principal: Claimant, options: SettingsOptions): [name: string, value: string][] {
  const { claims, role } = principal
  const settings = new Map<string, string>([['request.jwt.claims', JSON.stringify(claims)]])
  // The form of PostgREST before version 9: one setting per claim.
  for (const [claim, value] of Object.entries(claims))
    if (settingName.test(claim)) settings.set(`request.jwt.claim.${claim.toLowerCase()}`, textOf(value))
  for (const { setting, claim } of options.claimSettings) {
    const value = claimAt(claims, claim)
    settings.set(setting.toLowerCase(), value === undefined || value === null ? '' : textOf(value))
  }
  return [...settings, ['role', role]]
}

/** The same as a function from a setting's name to its value; undefined for settings that are not set. */
export function settingsOf(principal: Claimant, options: SettingsOptions): (name: string) => string | undefined {
  const settings = new Map(settingsList(principal, options))
  return name => settings.get(name.toLowerCase())
}

/** Text as it is, anything else as JSON. */
const textOf = (value: unknown): string => (typeof value === 'string' ? value : (JSON.stringify(value) ?? ''))

function claimAt(claims: Readonly<Record<string, unknown>>, path: string): unknown {
  if (Object.hasOwn(claims, path)) return claims[path]
  let value: unknown = claims
  for (const name of path.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined
    value = (value as Record<string, unknown>)[name]
  }
  return value
}
