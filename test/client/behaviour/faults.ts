// Scenarios of one client for each transport alone: what breaks, who notices, and that nobody lost anything.
import { connect } from 'node:net'
import { test, vi } from 'vitest'
import type { FaultProxy } from '../../support/fault-proxy.ts'
import { until } from '../../support/stalled.ts'
import { type Player, type Scene, scenarioMs } from './scene.ts'

interface Fault {
  readonly name: string
  inflict(proxy: FaultProxy): void
  /** Transports that lose their connection by it. */
  readonly loses: readonly string[]
  /** Those that do not; of the others it is not said: a browser repeats by itself a request whose connection was cut. */
  readonly keeps?: readonly string[]
  /** Who is live while it lasts. */
  readonly live: readonly string[]
}

const all = ['websocket', 'sse', 'long-poll']

const table: readonly Fault[] = [
  { name: 'connections cut', inflict: ({ link }) => link.cut(), loses: ['websocket', 'sse'], live: all },
  { name: 'connections stalled both ways', inflict: ({ link }) => link.freeze(), loses: all, live: all },
  { name: 'stalled on the way to the client', inflict: ({ link }) => link.freeze(['down']), loses: all, live: all },
  { name: 'stalled on the way to the server', inflict: ({ link }) => link.freeze(['up']), loses: all, live: all },
  { name: 'everything stalled, new connections too', inflict: ({ link }) => link.isolate(), loses: all, live: [] },
  {
    name: 'half-open: the server is gone, and the client is not told',
    inflict: ({ link }) => link.leaveHalfOpen('far'),
    loses: all,
    live: all,
  },
  {
    name: 'slow',
    inflict: ({ link }) => {
      link.bytesPerSecond = 60_000
    },
    loses: [],
    keeps: all,
    live: all,
  },
  {
    name: 'Upgrade refused',
    inflict: proxy => {
      proxy.upgradeStatus = 403
      proxy.link.cut()
    },
    loses: ['websocket', 'sse'],
    live: ['sse', 'long-poll'],
  },
  {
    name: 'frames to the client swallowed',
    inflict: proxy => proxy.swallow(['down']),
    loses: ['websocket'],
    keeps: ['sse', 'long-poll'],
    live: ['sse', 'long-poll'],
  },
  {
    name: 'frames to the server swallowed',
    inflict: proxy => proxy.swallow(['up']),
    loses: ['websocket'],
    keeps: ['sse', 'long-poll'],
    live: ['sse', 'long-poll'],
  },
  {
    name: 'responses buffered',
    inflict: proxy => {
      proxy.isBuffering = true
      proxy.link.cut()
    },
    loses: ['websocket', 'sse'],
    live: ['websocket', 'long-poll'],
  },
  {
    name: 'connections refused',
    inflict: ({ link }) => {
      link.isRefusing = true
      link.cut()
    },
    loses: all,
    live: [],
  },
]

/** @param sceneOf where there is a player for each transport, of that name */
export function faults(sceneOf: () => Scene): void {
  vi.setConfig({ testTimeout: scenarioMs })
  for (const { name, inflict, loses, keeps = [], live } of table)
    test(`[P1] [P4] [P8] ${name}`, async () => {
      const scene = sceneOf()
      const players = (names: readonly string[]): Player[] =>
        scene.players.filter(player => names.includes(player.name))
      const before = lossesOf(scene)
      const hasLost = (player: Player): boolean => player.glance.losses > before.get(player)!
      for (const { proxy } of scene.players) inflict(proxy)
      await scene.until('lost', hasLost, players(loses))
      await scene.areLive(players(live))
      await scene.progress(30, players(live))
      for (const { proxy } of scene.players) proxy.mend()
      await scene.areLive()
      await scene.progress(10)
      await scene.expectWhole()
      await scene.until('not lost', player => !hasLost(player), players(keeps))
    })

  test('[P1] [P4] [P8] idle connections cut, sooner than a heartbeat comes', async () => {
    const scene = sceneOf()
    const before = lossesOf(scene)
    await scene.quiet(async () => {
      for (const { proxy } of scene.players) proxy.link.idleMs = 400
      await scene.until('lost', player => player.glance.losses > before.get(player)!)
    })
    for (const { proxy } of scene.players) proxy.mend()
    await scene.areLive()
    await scene.expectWhole()
  })

  test('[P1] [P4] [P8] idle connections cut, later than a heartbeat comes: nobody is cut, however quiet it is', async () => {
    const scene = sceneOf()
    const before = lossesOf(scene)
    await scene.quiet(async () => {
      for (const { proxy } of scene.players) proxy.link.idleMs = 1600
      // As long as it takes that others are cut three times.
      for (let time = 0; time < 3; time++) await untilCut(scene.players[0]!.proxy.url)
    })
    await scene.until('never lost', player => player.glance.losses === before.get(player))
    for (const { proxy } of scene.players) proxy.mend()
    await scene.expectWhole()
  })
}

const lossesOf = (scene: Scene): Map<Player, number> =>
  new Map(scene.players.map(player => [player, player.glance.losses]))

/** Opens a connection and says nothing. */
async function untilCut(url: string): Promise<void> {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port) })
  socket.on('error', () => {})
  await until(() => socket.closed)
}
