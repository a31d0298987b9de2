// The same scenarios in Chromium: its WebSocket, its fetch, its timers, its pool of connections.
import { afterAll, beforeAll, describe } from 'vitest'
import { ChromiumDriver } from './chromium-driver.ts'
import { fallbacks } from './fallback.ts'
import { faults } from './faults.ts'
import { Scene } from './scene.ts'

let driver: ChromiumDriver

beforeAll(async () => {
  driver = await ChromiumDriver.start()
})

afterAll(async () => {
  await driver?.[Symbol.asyncDispose]()
})

describe('each transport alone', () => {
  let scene: Scene

  beforeAll(async () => {
    scene = await Scene.begin(driver)
    await scene.enterAll()
  })

  afterAll(async () => {
    await scene?.[Symbol.asyncDispose]()
  })

  faults(() => scene)
})

describe('of its own choice', () => {
  fallbacks(() => Scene.begin(driver))
})
