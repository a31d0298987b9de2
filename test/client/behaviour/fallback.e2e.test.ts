// The client before proxies that let less through than it would like.
import { afterAll, beforeAll } from 'vitest'
import { nodeDriver } from './driver.ts'
import { fallbacks } from './fallback.ts'
import { Scene } from './scene.ts'

let scene: Scene

beforeAll(async () => {
  scene = await Scene.begin(nodeDriver)
})

afterAll(async () => {
  await scene?.[Symbol.asyncDispose]()
})

fallbacks(() => scene)
