// Puts the door of subscriptions together, and what explains to operators who may pass it.
import { Asker } from '../ask/asker.ts'
import { createCatalog } from '../authorize/policy-catalog.ts'
import { settingsList } from '../authorize/settings.ts'
import type { Config } from '../config/config.ts'
import { createExplainer } from '../explain/operator.ts'
import type { Figures } from '../figures/figures.ts'
import { createLog } from '../log/log.ts'
import { askedPlaces } from '../postgres/connections.ts'
import { createRoleGate, openRolesOf, type RoleGate } from '../subscribe/roles.ts'
import type { Stream } from '../subscribe/stream.ts'
import { SubscriptionDoor } from '../subscribe/subscribe.ts'
import type { Principal } from '../subscribe/subscription.ts'
import type { Lanes } from './lanes.ts'

export interface DoorSetup {
  readonly config: Config
  readonly lanes: Lanes
  readonly stream: Stream
  readonly catalog: ReturnType<typeof createCatalog>
  readonly figures: Figures
  readonly pulse: () => { readonly stale: boolean; readonly lagMs: number }
  readonly epochNow: () => Promise<string>
}

type SettingsOf = (principal: Principal) => ReturnType<typeof settingsList>

export interface OpenDoor {
  readonly door: SubscriptionDoor
  readonly asker: Asker
  readonly gate: RoleGate
  readonly settingsOf: SettingsOf
}

export function openDoor({ config, lanes, stream, catalog, figures, pulse, epochNow }: DoorSetup): OpenDoor {
  const { relay, head, reader } = stream
  const settingsOf: SettingsOf = principal => settingsList(principal, { claimSettings: config.claimSettings })
  const gate = createRoleGate({ pool: lanes.catalog, allowed: config.jwtRoles, bound: openRolesOf(config) })
  const asker = new Asker({
    pool: lanes.asked,
    relay,
    head,
    reader,
    timeoutMs: config.askedTimeoutMs,
    concurrency: askedPlaces({ connections: config.databasePool, asked: config.askedConcurrency }),
    figures,
  })
  const door = new SubscriptionDoor({
    stream,
    pool: lanes.reads,
    random: Math.random,
    pulse,
    epochNow,
    asked: {
      asker,
      pool: lanes.catalog,
      limits: {
        maxAudiencesPerTable: config.askedMaxAudiencesPerTable,
        maxRows: config.askedMaxRows,
        recheckMs: config.recheckMs,
        graceMs: config.audienceGraceMs,
      },
    },
    prepare: {
      catalog,
      admit: role => gate.admit(role),
      settingsOf,
      maxLimit: config.limitMaxRows,
      filterLimits: {
        maxLength: config.maxFilterLength,
        maxDepth: config.maxFilterDepth,
        maxTerms: config.maxFilterTerms,
      },
    },
  })
  return { door, asker, gate, settingsOf }
}

export function openExplainer({
  config,
  lanes,
  gate,
  settingsOf,
}: Pick<DoorSetup, 'config' | 'lanes'> & Pick<OpenDoor, 'gate' | 'settingsOf'>): ReturnType<typeof createExplainer> {
  const { tidegateName, membershipMaxRows, jwtRoleClaim } = config
  const options = {
    pool: lanes.explain,
    catalog: () => createCatalog({ pool: lanes.catalog, publication: tidegateName, log: createLog('silent') }),
    publication: tidegateName,
    admit: (role: string) => gate.admit(role),
    settingsOf,
    maxRows: membershipMaxRows,
    timeoutMs: 10_000,
  }
  return createExplainer(options, jwtRoleClaim)
}
