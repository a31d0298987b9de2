// The same scenarios in Chromium: its WebSocket, its fetch, its timers, its pool of connections.
import { afterAll, beforeAll } from 'vitest'
import { ChromiumDriver } from './chromium-driver.ts'
import { fallbacks } from './fallback.ts'
import { faults } from './faults.ts'
import { Scene } from './scene.ts'

let driver: ChromiumDriver
let scene: Scene

beforeAll(async () => {
  driver = await ChromiumDriver.start()
  scene = await Scene.begin(driver)
})

afterAll(async () => {
  await scene?.[Symbol.asyncDispose]()
  await driver?.[Symbol.asyncDispose]()
})

faults(() => scene)
fallbacks(() => scene)
