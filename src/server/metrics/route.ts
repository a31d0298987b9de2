// GET /metrics, for Prometheus.
import type { OperatorRoute } from '../operator/route.ts'
import type { MetricsOptions, NodeMetrics } from './registry.ts'

export function metricsRoute(options: MetricsOptions): OperatorRoute {
  let opening: Promise<NodeMetrics> | null = null
  // With the first scrape: most commands and many nodes are never asked, and the library takes 30 ms to load.
  const open = (): Promise<NodeMetrics> => {
    opening ??= import('./registry.ts').then(({ NodeMetrics }) => new NodeMetrics(options))
    return opening
  }
  return {
    method: 'GET',
    path: '/metrics',
    answer: async ({ response }) => {
      const metrics = await open()
      const body = Buffer.from(await metrics.text())
      if (response.destroyed) return
      response.writeHead(200, {
        'Content-Type': metrics.contentType,
        'Content-Length': String(body.length),
        'Cache-Control': 'no-store',
      })
      response.end(body)
    },
  }
}
