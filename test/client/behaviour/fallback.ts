// Scenarios of a client that chooses for itself: what does not carry is left for what does, it says so, and it comes back.
import { expect, test, vi } from 'vitest'
import type { FaultProxy } from '../../support/fault-proxy.ts'
import { startDebianNginx } from '../../support/nginx.ts'
import { type Player, type Scene, scenarioMs } from './scene.ts'

const isOver =
  (name: 'live' | 'degraded', transport: string) =>
  ({ glance: { status } }: Player): boolean =>
    status.name === name && status.transport === transport

const ways: readonly { readonly name: string; inflict(proxy: FaultProxy): void; readonly transport: string }[] = [
  {
    name: 'a proxy that refuses Upgrade',
    inflict: proxy => {
      proxy.upgradeStatus = 403
    },
    transport: 'sse',
  },
  {
    name: 'a proxy that lets an Upgrade through, and no frame after it',
    inflict: proxy => proxy.swallow(['up', 'down']),
    transport: 'sse',
  },
  {
    name: 'a proxy that refuses Upgrade and holds back responses until they end',
    inflict: proxy => {
      proxy.upgradeStatus = 502
      proxy.isBuffering = true
    },
    transport: 'long-poll',
  },
]

/** Side by side: they mostly wait until what was left is tried again. */
export function fallbacks(sceneOf: () => Scene): void {
  vi.setConfig({ testTimeout: scenarioMs })
  test.concurrent.each(ways)(
    '[P1] [P4] [P8] $name: it goes on over $transport, says why, and comes back',
    async way => {
      const scene = sceneOf()
      await using player = await scene.enter('chooses')
      const players = [player]
      await scene.until('live over a WebSocket', isOver('live', 'websocket'), players)
      way.inflict(player.proxy)
      player.proxy.link.cut()
      await scene.until(`degraded to ${way.transport}`, isOver('degraded', way.transport), players)
      const { status } = player.glance
      expect(status.name === 'degraded' && status.reason).toMatchObject({ code: expect.any(String) })
      await scene.progress(10, players)
      await scene.expectWhole(players)
      player.proxy.mend()
      await scene.until('live over a WebSocket again', isOver('live', 'websocket'), players)
      await scene.progress(10, players)
      await scene.expectWhole(players)
    },
  )

  test.concurrent("[P1] [P4] [P8] Debian's nginx with its defaults: streams and polls pass, and who chooses finds a stream", async () => {
    const scene = sceneOf()
    await using nginx = await startDebianNginx(scene.node.url)
    const targetUrl = nginx.url
    await using sse = await scene.enter('sse', { transports: ['sse'], targetUrl })
    await using longPoll = await scene.enter('long-poll', { transports: ['long-poll'], targetUrl })
    await using chooses = await scene.enter('chooses', { targetUrl })
    const players = [sse, longPoll, chooses]
    await scene.until('degraded to sse', isOver('degraded', 'sse'), [chooses])
    await scene.areLive(players)
    await scene.progress(20, players)
    await scene.expectWhole(players)
    for (const { proxy } of players) proxy.link.cut()
    await scene.until('lost', ({ name, glance }) => glance.losses > 0 || name === 'long-poll', players)
    await scene.areLive(players)
    await scene.progress(10, players)
    await scene.expectWhole(players)
  })
}
