// What befalls a deployment, drawn from the seed: the how manieth fault of a run is always the same, whenever it comes.
import { type Crash, crashes } from '../checker/cluster.ts'
import { Random } from '../checker/random.ts'
import type { Direction } from '../support/faulty-link.ts'

/** Who holds the slot, somebody who does not, or one of the nodes that are there: a share of their number. */
export type Whom = 'leader' | 'follower' | number

export type LinkTo = 'clients' | 'postgres' | 'redis'

export type Fault =
  | { readonly what: 'node killed'; readonly whom: Whom; readonly forMs: number }
  | { readonly what: 'node stopped'; readonly whom: Whom; readonly forMs: number }
  | { readonly what: 'clock jumped'; readonly whom: Whom; readonly offsetMs: number; readonly forMs: number }
  | { readonly what: 'connections cut'; readonly whom: Whom; readonly to: LinkTo; readonly share: number }
  | {
      readonly what: 'connections black-holed'
      readonly whom: Whom
      readonly to: LinkTo
      readonly ways: readonly Direction[]
      readonly share: number
      /** Only those whose first words hold this, as a Redis connection's name. */
      readonly carrying?: string
      readonly forMs: number
    }
  | {
      readonly what: 'connections half open'
      readonly whom: Whom
      readonly to: LinkTo
      readonly gone: 'near' | 'far'
      readonly share: number
      readonly forMs: number
    }
  | { readonly what: 'readers slow'; readonly share: number; readonly forMs: number }
  | { readonly what: 'commits stalled'; readonly forMs: number }
  | { readonly what: 'postgres'; readonly how: Crash }
  | { readonly what: 'slot dropped' }
  /** Its own: killed and started with all that it had confirmed. */
  | { readonly what: 'redis emptied' | 'redis restarted'; readonly forMs: number }
  /** Started with what it held some time before it was killed. */
  | { readonly what: 'redis rolled back'; readonly byMs: number; readonly forMs: number }
  | { readonly what: 'redis stopped'; readonly forMs: number }
  | { readonly what: 'rolling deploy' }
  | { readonly what: 'node joined'; readonly forMs: number }

export interface DueFault {
  /** After the one before it. */
  readonly afterMs: number
  readonly fault: Fault
}

export type FaultKind = Fault['what']

/** How often each comes, against the others. */
const weights: Readonly<Record<FaultKind, number>> = {
  'node killed': 12,
  'node stopped': 10,
  'clock jumped': 8,
  'connections cut': 14,
  'connections black-holed': 16,
  'connections half open': 10,
  'readers slow': 5,
  'commits stalled': 6,
  postgres: 4,
  'slot dropped': 1,
  'redis emptied': 4,
  'redis restarted': 3,
  'redis rolled back': 4,
  'redis stopped': 4,
  'rolling deploy': 1,
  'node joined': 2,
}

export const faultKinds = Object.keys(weights) as FaultKind[]

/** @param kinds to draw from */
export function faultOf(
  seed: number,
  number: number,
  { kinds, everyMs }: { readonly kinds: readonly FaultKind[]; readonly everyMs: number },
): DueFault {
  const random = Random.of(seed, 'fault', number)
  // As things befall: often close together, now and then far apart.
  const afterMs = Math.min(4 * everyMs, -everyMs * Math.log(1 - random.next()))
  const weighted = kinds.flatMap(kind => Array.from({ length: weights[kind] }, () => kind))
  return { afterMs, fault: drawn(random, random.pick(weighted), kinds) }
}

function drawn(random: Random, what: FaultKind, kinds: readonly FaultKind[]): Fault {
  const whom: Whom = random.once(2) ? 'leader' : random.next()
  const between = (leastMs: number, mostMs: number): number => leastMs + random.below(mostMs - leastMs)
  const hasRedis = kinds.some(kind => kind.startsWith('redis'))
  const to = random.pick<LinkTo>(hasRedis ? ['clients', 'clients', 'postgres', 'redis'] : ['clients', 'postgres'])
  const share = random.pick([1, 1, 0.5, 0.3])
  switch (what) {
    case 'node killed':
      return { what, whom, forMs: random.once(3) ? between(1000, 4000) : 0 }
    case 'node stopped':
      return { what, whom, forMs: between(1000, 8000) }
    case 'clock jumped':
      // Within the life of a token, which is an hour.
      return {
        what,
        whom,
        offsetMs: (random.next() * 2 - 1) * random.pick([2000, 60_000, 1_500_000]),
        forMs: between(500, 5000),
      }
    case 'connections cut':
      return { what, whom, to, share }
    case 'connections black-holed': {
      const ways = random.pick([['up'], ['down'], ['up', 'down']] as const)
      return { what, whom, to, ways, share, forMs: between(500, 8000) }
    }
    case 'connections half open':
      return { what, whom, to, gone: random.pick(['near', 'far'] as const), share, forMs: between(1000, 8000) }
    case 'readers slow':
      return { what, share: 0.3, forMs: between(1000, 5000) }
    case 'commits stalled':
      return { what, forMs: between(200, 3000) }
    case 'postgres':
      return { what, how: random.pick(crashes) }
    case 'redis rolled back':
      return { what, byMs: between(500, 5000), forMs: between(0, 1500) }
    case 'redis emptied':
    case 'redis restarted':
      return { what, forMs: between(0, 2500) }
    case 'redis stopped':
      return { what, forMs: between(1000, 7000) }
    case 'node joined':
      return { what, forMs: between(5000, 15_000) }
    case 'slot dropped':
    case 'rolling deploy':
      return { what }
  }
}

/** How it is counted: `connections cut: redis`. */
export function nameOfFault(fault: Fault): string {
  switch (fault.what) {
    case 'connections black-holed':
      return `${fault.what}: ${fault.to} ${fault.ways.join(' and ')}`
    case 'connections cut':
    case 'connections half open':
      return `${fault.what}: ${fault.to}`
    case 'postgres':
      return `postgres ${fault.how}`
    default:
      return fault.what
  }
}
