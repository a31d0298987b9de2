// One run of torture of channels: those who speak, those who listen and hop, members let in and out, and faults that never rest, in
// rounds; at the end of each, once all is made good and quiet, the verdict.
import { Cluster } from '../../checker/cluster.ts'
import { usersOf } from '../../checker/crowd.ts'
import { Random } from '../../checker/random.ts'
import { count } from '../../checker/tally.ts'
import { prepareDatabase, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { type RedisProcess, startRedis } from '../../support/redis-process.ts'
import { Fate } from '../fate.ts'
import { type DueFault, type Fault, type FaultKind, nameOfFault } from '../faults.ts'
import { Tormentor, type Wound } from '../inflict.ts'
import { TorturedNodes } from '../nodes.ts'
import { ChannelJudge } from './judge.ts'
import { type Harm, Ledger } from './ledger.ts'
import { Listener } from './listener.ts'
import { Quiet } from './quiet.ts'
import { Speaker } from './speakers.ts'
import { moveMember, moveMembers, Session, speakInSql } from './statements.ts'
import { channelRules, channelsSchema, channelTables, rooms } from './world.ts'

/** What befalls channels. */
export const channelFaults: readonly FaultKind[] = [
  'node killed',
  'node stopped',
  'connections cut',
  'connections black-holed',
  'connections half open',
  'readers slow',
  'commits stalled',
  'postgres',
  'redis emptied',
  'redis restarted',
  'redis rolled back',
  'redis stopped',
  'rolling deploy',
]

export interface ChannelTortureOptions {
  readonly seed: number
  readonly minutes: number
  /** It goes on past its minutes until so much has come about, on a machine that is slow. */
  readonly least?: { readonly faults: number; readonly messages: number; readonly deliveries: number }
  readonly roundMs: number
  readonly nodes: number
  readonly listeners: number
  /** Of each kind: over sockets, by POST, in SQL. */
  readonly speakers: number
  readonly faultEveryMs: number
  readonly kinds?: readonly FaultKind[]
  readonly plan?: readonly DueFault[]
  /** A mistake to plant in every node: see plant.ts. */
  readonly plant?: string
  say(line: string): void
}

export interface ChannelTortureReport {
  readonly seed: number
  readonly minutes: number
  readonly rounds: number
  /** Said, by what came of it. */
  readonly messages: Readonly<Record<string, number>>
  readonly deliveries: number
  readonly changes: number
  readonly resyncs: Readonly<Record<string, number>>
  readonly gaps: number
  readonly hops: number
  readonly faults: number
  readonly faultsByKind: Readonly<Record<string, number>>
  readonly found: Readonly<Record<Harm, number>>
  /** What befell lately, then the first of what was found with their histories, and last all of it in a line each. */
  readonly failures: readonly string[]
}

interface FaultRecord {
  readonly line: string
  readonly atMs: number
  overMs: number | null
}

const patienceMs = 4000
const steadyUsers = 3

export async function tortureChannels(options: ChannelTortureOptions): Promise<ChannelTortureReport> {
  await using cluster = await Cluster.start({ xidEpoch: null, crashes: true })
  await using redis = await startRedis({ appendonly: true })
  await using database = await TestDatabase.create(cluster.url)
  await prepareDatabase(database, channelsSchema, channelTables)
  const random = Random.of(options.seed, 'balancer')
  await using nodes = await TorturedNodes.start(options.nodes, {
    databaseUrl: database.url,
    redisUrl: redis.url,
    settings: {
      CHANNELS: JSON.stringify(channelRules),
      HEARTBEAT_MS: '2000',
      DATABASE_POOL: '4',
      MAX_FRAMES_PER_SECOND: '2000',
      SEND_QUEUE_BYTES: '16384',
    },
    plant: options.plant ?? null,
    random: () => random.next(),
  })
  const run = new Run(options, { cluster, redis, nodes, databaseUrl: database.url })
  try {
    return await run.run()
  } finally {
    await run.end()
  }
}

interface Deployment {
  readonly cluster: Cluster
  readonly redis: RedisProcess
  readonly nodes: TorturedNodes
  readonly databaseUrl: string
}

class Run {
  readonly #options: ChannelTortureOptions
  readonly #deployment: Deployment
  readonly #ledger = new Ledger()
  readonly #users: readonly string[]
  readonly #listening = new AbortController()
  readonly #fate: Fate
  readonly #records: FaultRecord[] = []
  readonly #byKind: Record<string, number> = {}
  readonly #begunAt = performance.now()
  #listeners: readonly Listener[] = []
  #heard: Promise<unknown> = Promise.resolve()

  constructor(options: ChannelTortureOptions, deployment: Deployment) {
    this.#options = options
    this.#deployment = deployment
    const { seed, faultEveryMs: everyMs, plan, kinds = channelFaults } = options
    this.#users = usersOf(seed, 8)
    const run = this
    const tormentor = new Tormentor({
      ...deployment,
      crowd: {
        get checked() {
          return run.#listeners.map(client => ({ client }))
        },
      },
      redisLoses: async savedAt => {
        const killedAt = performance.now()
        this.#ledger.losses.push({ savedAt: savedAt ?? Number.NEGATIVE_INFINITY, killedAt })
      },
    })
    this.#fate = new Fate({
      ...{ seed, everyMs, kinds, tormentor, ...(plan === undefined ? {} : { plan }) },
      begins: (...begun) => this.#begins(...begun),
    })
  }

  async run(): Promise<ChannelTortureReport> {
    const { seed, minutes, roundMs, say } = this.#options
    say(`seed ${seed}`)
    await this.#begin()
    const ledger = this.#ledger
    let rounds = 0
    while (ledger.findings.length === 0 && (this.#nowMs < minutes * 60_000 || this.#isTooLittle())) {
      await this.#round(roundMs)
      rounds += 1
      say(
        `${Math.round(this.#nowMs / 1000)} s: ${this.#records.length} faults, ${ledger.said.length} messages, ${ledger.deliveries} deliveries, resyncs ${JSON.stringify(ledger.resyncs)}, ${ledger.gaps} gaps, ${ledger.findings.length} found`,
      )
    }
    return this.#report(rounds)
  }

  async end(): Promise<void> {
    this.#listening.abort()
    await this.#heard
  }

  get #nowMs(): number {
    return performance.now() - this.#begunAt
  }

  async #begin(): Promise<void> {
    const { seed, listeners } = this.#options
    const { nodes, databaseUrl } = this.#deployment
    const ledger = this.#ledger
    await using session = new Session(databaseUrl)
    const random = Random.of(seed, 'begin')
    for (const [place, user] of this.#users.entries())
      for (const room of rooms)
        if (place < steadyUsers || random.once(2))
          await moveMember(session, ledger, { user, room, isLetIn: true }, false)
    ledger.startedAt = performance.now()
    this.#listeners = await Promise.all(
      Array.from({ length: listeners }, async (_, place) => {
        const name = `listener ${place + 1}`
        // Half of them are never shut out.
        const user =
          place % 2 === 0
            ? this.#users[Math.floor(place / 2) % steadyUsers]!
            : random.pick(this.#users.slice(steadyUsers))
        const judge = new ChannelJudge({ name, user, room: rooms[place % rooms.length]!, ledger })
        return new Listener({ judge, token: await tokenFor(user), nodes, random: Random.of(seed, name), patienceMs })
      }),
    )
    this.#heard = Promise.all(this.#listeners.map(listener => listener.run(this.#listening.signal)))
    this.#heard.catch(error => ledger.find('wrong', `a listener failed: ${error.stack}`))
  }

  async #round(forMs: number): Promise<void> {
    const stop = new AbortController()
    for (const listener of this.#listeners) listener.hopOn()
    const spoken = this.#speak(stop.signal)
    spoken.catch(() => stop.abort())
    try {
      await this.#fate.befall(performance.now() + forMs, stop.signal)
    } finally {
      stop.abort()
      await spoken
    }
    const marker = await this.#speaker(0, 'marker')
    const quiet = new Quiet({
      ...{ ledger: this.#ledger, listeners: this.#listeners, nodes: this.#deployment.nodes },
      token: await tokenFor(this.#users[0]!),
      mark: room => marker.mark(room),
    })
    await quiet.judge()
    for (const { fault } of this.#deployment.nodes.all) if (fault !== null) this.#ledger.find('wrong', fault)
  }

  async #speak(signal: AbortSignal): Promise<void> {
    const { seed, speakers } = this.#options
    const round = this.#ledger.said.length
    const speaking: Promise<void>[] = []
    for (let place = 0; place < speakers; place++) {
      const name = `${round} ${place}`
      const actor = (what: string) => ({
        url: this.#deployment.databaseUrl,
        ledger: this.#ledger,
        random: Random.of(seed, what, name),
        pauseMs: 150,
      })
      // The last of them may be shut out.
      const user = place === speakers - 1 ? steadyUsers : place % steadyUsers
      const [bySocket, byPost] = await Promise.all([
        this.#speaker(user, `socket ${name}`),
        this.#speaker(user, `post ${name}`),
      ])
      speaking.push(bySocket.overSockets(signal), byPost.overHttp(signal), speakInSql(actor('sql'), signal))
      if (place === 0) speaking.push(moveMembers(actor('members'), this.#users.slice(steadyUsers), signal))
    }
    await Promise.all(speaking)
  }

  async #speaker(user: number, name: string): Promise<Speaker> {
    const sub = this.#users[user]!
    return new Speaker({
      ...{ ledger: this.#ledger, nodes: this.#deployment.nodes, user: sub, users: this.#users },
      ...{ token: await tokenFor(sub), random: Random.of(this.#options.seed, name), pauseMs: 60, patienceMs },
    })
  }

  #begins(number: number, fault: Fault, { node }: Wound): () => void {
    const name = nameOfFault(fault)
    const isRestart = ['redis restarted', 'redis emptied', 'redis rolled back'].includes(name)
    if (isRestart) this.#ledger.restarts.push(Number.POSITIVE_INFINITY)
    const restart = this.#ledger.restarts.length - 1
    count(this.#byKind, name)
    const record: FaultRecord = {
      line: `#${number} ${name}${node === null ? '' : ` of ${node.name}`}`,
      atMs: performance.now(),
      overMs: null,
    }
    this.#records.push(record)
    return () => {
      record.overMs = performance.now() - record.atMs
      if (isRestart) this.#ledger.restarts[restart] = performance.now()
    }
  }

  #isTooLittle(): boolean {
    const { least } = this.#options
    if (least === undefined) return false
    const { said, deliveries } = this.#ledger
    return this.#records.length < least.faults || said.length < least.messages || deliveries < least.deliveries
  }

  #report(rounds: number): ChannelTortureReport {
    const ledger = this.#ledger
    const messages: Record<string, number> = {}
    for (const { way, outcome } of ledger.said) count(messages, `${way} ${outcome}`)
    const found: Record<Harm, number> = {
      ...{ lost: 0, repeated: 0, leaked: 0, disordered: 0, 'resync without a cause': 0, wrong: 0 },
    }
    for (const { harm } of ledger.findings) found[harm] += 1
    return {
      seed: this.#options.seed,
      minutes: Math.round(this.#nowMs / 600) / 100,
      rounds,
      messages,
      deliveries: ledger.deliveries,
      changes: ledger.changes.length,
      resyncs: ledger.resyncs,
      gaps: ledger.gaps,
      hops: this.#listeners.reduce((sum, { hops }) => sum + hops, 0),
      faults: this.#records.length,
      faultsByKind: Object.fromEntries(Object.entries(this.#byKind).sort()),
      found,
      failures: ledger.findings.length === 0 ? [] : this.#told(),
    }
  }

  #told(): string[] {
    const stories = this.#ledger.findings.map(({ harm, text }) => `${harm}: ${text}`)
    const inShort = stories.map(story => story.split('\n', 1)[0]!)
    const faults = this.#records
      .slice(-20)
      .map(
        ({ line, atMs, overMs }) =>
          `  ${Math.round(atMs)} ${line}, for ${overMs === null ? '?' : Math.round(overMs)} ms`,
      )
    const said = this.#deployment.nodes.all.flatMap(({ name, log }) => [
      `what ${name} said last:`,
      ...log.slice(-10).map(line => `  ${line.slice(0, 300)}`),
    ])
    return [
      ['what befell (moments as in the histories):', ...faults, ...said].join('\n'),
      ...firstOfEach(stories).slice(0, 8),
      ['found:', ...inShort.slice(0, 30)].join('\n'),
    ]
  }
}

/** The first of each that was harmed in each way. */
function firstOfEach(stories: readonly string[]): string[] {
  const known = new Set<string>()
  return stories.filter(story => {
    const who = story.split('(', 1)[0]!
    if (known.has(who)) return false
    known.add(who)
    return true
  })
}
