// The client before proxies that let less through than it would like.
import { nodeDriver } from './driver.ts'
import { fallbacks } from './fallback.ts'
import { Scene } from './scene.ts'

fallbacks(() => Scene.begin(nodeDriver))
