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

/** @param beginScene one for each, which is then over */
export function fallbacks(beginScene: () => Promise<Scene>): void {
  vi.setConfig({ testTimeout: scenarioMs })
  test.each(ways)('[P1] [P4] [P8] $name: it goes on over $transport, says why, and comes back', async way => {
    await using scene = await beginScene()
    const player = await scene.enter('chooses')
    await scene.until('live over a WebSocket', isOver('live', 'websocket'))
    way.inflict(player.proxy)
    player.proxy.link.cut()
    await scene.until(`degraded to ${way.transport}`, isOver('degraded', way.transport))
    const { status } = player.glance
    expect(status.name === 'degraded' && status.reason).toMatchObject({ code: expect.any(String) })
    await scene.progress(20)
    await scene.expectWhole()
    player.proxy.mend()
    await scene.until('live over a WebSocket again', isOver('live', 'websocket'))
    await scene.progress(20)
    await scene.expectWhole()
  })

  test("[P1] [P4] [P8] Debian's nginx with its defaults: streams and polls pass, and who chooses finds a stream", async () => {
    await using scene = await beginScene()
    await using nginx = await startDebianNginx(scene.node.url)
    const players = [
      await scene.enter('sse', ['sse'], nginx.url),
      await scene.enter('long-poll', ['long-poll'], nginx.url),
      await scene.enter('chooses', undefined, nginx.url),
    ]
    await scene.until('degraded to sse', isOver('degraded', 'sse'), [players[2]!])
    await scene.areLive()
    await scene.progress(50)
    await scene.expectWhole()
    for (const { proxy } of players) proxy.link.cut()
    await scene.until('lost', ({ name, glance }) => glance.losses > 0 || name === 'long-poll')
    await scene.areLive()
    await scene.progress(20)
    await scene.expectWhole()
  })
}
