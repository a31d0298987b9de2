// The published packages at a service without public channels.
import { afterAll, beforeAll, describe, test } from 'vitest'
import { startNodeRuntime } from './runtime.ts'
import { privateOnly } from './scenarios/private-only.ts'
import { cells, World } from './world.ts'

let world: World

beforeAll(async () => {
  world = await World.begin(startNodeRuntime, privateOnly, { SUPABASE_PRIVATE_ONLY: '1' })
})

afterAll(async () => {
  await world?.[Symbol.asyncDispose]()
})

for (const cell of cells)
  describe.concurrent(`supabase-js ${cell.version}, vsn ${cell.vsn}`, () => {
    for (const scenario of privateOnly)
      test(scenario.name, async () => {
        await using scene = world.scene(cell, scenario)
        await scenario.play(scene)
      })
  })
