// Whether a node lives and is ready: asked by balancers and alarms, which send no Origin and know no token.
import { answerJson, type Exchange } from './exchange.ts'

export interface Readiness {
  readonly ready: boolean
  /** Sent as JSON either way. */
  readonly body: object
}

export interface Probes {
  health(): { readonly ok: boolean }
  ready(scope: 'service' | 'node'): Readiness | Promise<Readiness>
}

/** @returns null when the path is neither /health nor /ready */
export function answerProbe(probes: Probes, exchange: Exchange): Promise<void> | null {
  if (exchange.path === '/health') return answerHealth(probes, exchange)
  return exchange.path === '/ready' ? answerReady(probes, exchange) : null
}

async function answerHealth(probes: Probes, exchange: Exchange): Promise<void> {
  const health = probes.health()
  answerJson(exchange, health.ok ? 200 : 503, JSON.stringify(health))
}

async function answerReady(probes: Probes, exchange: Exchange): Promise<void> {
  const scope = exchange.parameters.get('scope') === 'node' ? 'node' : 'service'
  const { ready, body } = await probes.ready(scope)
  answerJson(exchange, ready ? 200 : 503, JSON.stringify(body))
}
