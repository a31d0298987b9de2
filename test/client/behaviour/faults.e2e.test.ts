// The client over each transport, with everything between it and the server that breaks.
import { afterAll, beforeAll } from 'vitest'
import { nodeDriver } from './driver.ts'
import { faults } from './faults.ts'
import { Scene } from './scene.ts'

let scene: Scene

beforeAll(async () => {
  scene = await Scene.begin(nodeDriver)
})

afterAll(async () => {
  await scene?.[Symbol.asyncDispose]()
})

faults(() => scene)
