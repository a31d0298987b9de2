// Scenarios of one client for each transport alone: what breaks, who notices, and that nobody lost anything.
import { connect } from 'node:net'
import { test, vi } from 'vitest'
import type { FaultProxy } from '../../support/fault-proxy.ts'
import { until } from '../../support/stalled.ts'
import { heartbeatMs, type Player, type Scene, scenarioMs } from './scene.ts'

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

/** Side by side: each has players of its own, and what one waits for, others wait for too. */
export function faults(sceneOf: () => Scene): void {
  vi.setConfig({ testTimeout: scenarioMs })
  /** One for each transport, of that name. Who was through a scenario is there for the next. */
  const free: (readonly Player[])[] = []
  /** One for each transport whom nothing befalls: what they lose, the machine was too busy for. */
  let witnesses: Promise<readonly Player[]> | null = null

  const play = async (
    scenario: (scene: Scene, players: readonly Player[], witnessed: Losses) => Promise<void>,
  ): Promise<void> => {
    const scene = sceneOf()
    witnesses ??= scene.enterAll()
    const players = free.pop() ?? (await scene.enterAll())
    await scenario(scene, players, lossesOf(await witnesses))
    free.push(players)
  }

  for (const { name, inflict, loses, keeps = [], live } of table)
    test.concurrent(`[P1] [P4] [P8] ${name}`, () =>
      play(async (scene, all, witnessed) => {
        const players = (names: readonly string[]): Player[] => all.filter(player => names.includes(player.name))
        const before = lossesOf(all)
        const hasLost = (player: Player): boolean => player.glance.losses > before.get(player)!
        for (const { proxy } of all) inflict(proxy)
        await scene.until('lost', hasLost, players(loses))
        await scene.areLive(players(live))
        await scene.progress(10, players(live))
        for (const { proxy } of all) proxy.mend()
        await scene.areLive(all)
        await scene.progress(5, all)
        await scene.expectWhole(all)
        await scene.until('not lost', player => !hasLost(player) || wasBusy(player, witnessed), players(keeps))
      }))

  test.concurrent('[P1] [P4] [P8] idle connections cut, sooner than a heartbeat comes', () =>
    play(async (scene, players) => {
      const before = lossesOf(players)
      await scene.quiet(async () => {
        for (const { proxy } of players) proxy.link.idleMs = 400
        await scene.until('lost', player => player.glance.losses > before.get(player)!, players)
      })
      for (const { proxy } of players) proxy.mend()
      await scene.areLive(players)
      await scene.expectWhole(players)
    }))

  test.concurrent('[P1] [P4] [P8] idle connections cut, later than a heartbeat comes: nobody is cut, however quiet it is', () =>
    play(async (scene, players, witnessed) => {
      const before = lossesOf(players)
      await scene.quiet(async () => {
        for (const { proxy } of players) proxy.link.idleMs = 2 * heartbeatMs
        // As long as it takes that others are cut twice.
        for (let time = 0; time < 2; time++) await untilCut(players[0]!.proxy.url)
      })
      const hasKept = (player: Player): boolean => player.glance.losses === before.get(player)
      await scene.until('never lost', player => hasKept(player) || wasBusy(player, witnessed), players)
      for (const { proxy } of players) proxy.mend()
      await scene.expectWhole(players)
    }))
}

type Losses = ReadonlyMap<Player, number>

const lossesOf = (players: readonly Player[]): Losses => new Map(players.map(player => [player, player.glance.losses]))

/** Whom nothing befell lost a connection of the same transport since. */
const wasBusy = ({ name }: Player, witnessed: Losses): boolean =>
  [...witnessed].some(([witness, losses]) => witness.name === name && witness.glance.losses > losses)

/** Opens a connection and says nothing. */
async function untilCut(url: string): Promise<void> {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port) })
  socket.on('error', () => {})
  await until(() => socket.closed)
}
