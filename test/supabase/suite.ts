// The scenarios in every cell: a version of the package, and a version of the wire.
import { afterAll, beforeAll, describe, test, vi } from 'vitest'
import type { Tell } from './performer.ts'
import type { Runtime } from './runtime.ts'
import { broadcasts } from './scenarios/broadcast.ts'
import { changes } from './scenarios/changes.ts'
import { channels } from './scenarios/channels.ts'
import { filterScenarios } from './scenarios/filters.ts'
import { presences } from './scenarios/presence.ts'
import { cells, type Scenario, World } from './world.ts'

export const scenarios: readonly Scenario[] = [...changes, ...filterScenarios, ...broadcasts, ...presences, ...channels]

/** Settings of the node that the scenarios play on. */
const settings = {
  CHANNELS: JSON.stringify([{ pattern: 'unkept:*' }, { pattern: '*', history: { length: 100, age: '1h' } }]),
}

/** A page plays each package with the wire that it speaks if nobody asks for another; the other two cells differ from those in what Node plays
 *  too, and are played in a page with SUPABASE_CELLS=all. */
const ofPages = cells.filter(
  ({ version, vsn }) => process.env.SUPABASE_CELLS === 'all' || (version === '2.83.0') === (vsn === '1.0.0'),
)

export function playEverywhere(name: Runtime['name'], start: (tell: Tell) => Promise<Runtime>): void {
  vi.setConfig({ maxConcurrency: 12 })
  const played = name === 'Chromium' ? ofPages : cells
  let world: World

  beforeAll(async () => {
    world = await World.begin(start, scenarios, settings, played)
  })

  afterAll(async () => {
    await world?.[Symbol.asyncDispose]()
  })

  for (const cell of played)
    describe.concurrent(`supabase-js ${cell.version}, vsn ${cell.vsn}, in ${name}`, () => {
      for (const scenario of scenarios) {
        if (scenario.not?.({ ...cell, runtime: name })) continue
        test(scenario.name, async () => {
          await using scene = world.scene(cell, scenario)
          await scenario.play(scene)
        })
      }
    })
}
