// Exports the way of commits as OpenTelemetry traces, where OTEL_EXPORTER_OTLP_ENDPOINT says to. A trace that cannot go out is
// dropped: nothing waits for it.
import { setTimeout as sleep } from 'node:timers/promises'
import type { HrTime, SpanOptions } from '@opentelemetry/api'
import { type CommitTrace, CommitTraces } from '../figures/commit-trace.ts'
import type { Figures } from '../figures/figures.ts'
import { stages } from '../figures/stage.ts'
import type { Log } from '../log/log.ts'
import { release } from '../nodes/release.ts'
import { steadyNow } from '../steady-clock.ts'
import { type PlannedSpan, planSpans } from './commit-spans.ts'
import { loadTracingPackages, type TracingPackages } from './packages.ts'
import { openSpanExporter } from './span-exporter.ts'
import { TraceRate } from './trace-rate.ts'

export interface TracingOptions {
  readonly config: {
    readonly otelExporterOtlpEndpoint: string | null
    readonly otelServiceName: string
    readonly tracesPerSecond: number
  }
  readonly figures: Figures
  readonly nodeId: string
  readonly log: Log
}

export interface Tracing {
  /** Of this node, for whoever else watches. */
  readonly traces: CommitTraces
  /** Sends what waits, for two seconds at most. */
  close(): Promise<void>
}

/** Commits whose spans are not sent yet: two seconds of the most there may be. Further ones are lost. */
const maxWaiting = 200
const maxWaitingSpans = maxWaiting * (stages.length + 1)
const maxBatchSpans = maxWaitingSpans / 4
const sendEveryMs = 500
const closeMs = 2000

/** @throws TRACING_MISSING when it is to export and the packages for it are not installed */
export async function openTracing({ config, figures, nodeId, log }: TracingOptions): Promise<Tracing> {
  const traces = new CommitTraces()
  const { otelExporterOtlpEndpoint: endpoint, otelServiceName, tracesPerSecond } = config
  if (endpoint === null) return { traces, close: async () => {} }
  const packages = await loadTracingPackages()
  const { sdk, resources } = packages
  let waiting = 0
  const exporter = openSpanExporter(packages, {
    endpoint,
    log,
    onEnd: (fate, count) => {
      waiting -= count
      figures.traces.add(fate, count)
    },
  })
  const provider = new sdk.TracerProvider({
    resource: resources.resourceFromAttributes({
      'service.name': otelServiceName,
      'service.version': release,
      'service.instance.id': nodeId,
    }),
    sampler: new sdk.AlwaysOnSampler(),
    spanProcessors: [
      new sdk.BatchSpanProcessor({
        exporter,
        maxQueueSize: maxWaitingSpans,
        maxExportBatchSize: maxBatchSpans,
        scheduledDelayMillis: sendEveryMs,
      }),
    ],
  })
  const rate = new TraceRate(tracesPerSecond)
  const emit = emitterOf(packages, provider)
  const unwatch = traces.watch(trace => {
    if (!rate.take(steadyNow())) figures.traces.add('skipped')
    else if (waiting >= maxWaiting) figures.traces.add('lost')
    else {
      waiting += 1
      emit(trace)
    }
  })
  return {
    traces,
    close: async () => {
      unwatch()
      // What fails was told when it failed first.
      const end = provider.shutdown().catch(() => {})
      await Promise.race([end, sleep(closeMs, undefined, { ref: false })])
    },
  }
}

type Provider = InstanceType<TracingPackages['sdk']['TracerProvider']>

function emitterOf({ api }: TracingPackages, provider: Provider): (trace: CommitTrace) => void {
  const tracer = provider.getTracer('tidegate', release)
  const start = ({ name, startedAtMs, attributes }: PlannedSpan, within: ReturnType<typeof api.trace.setSpan>) =>
    tracer.startSpan(name, { startTime: hrTime(startedAtMs), attributes: attributes as SpanAttributesOf }, within)
  return trace => {
    const { root, stages } = planSpans(trace)
    const rootSpan = start(root, api.ROOT_CONTEXT)
    const within = api.trace.setSpan(api.ROOT_CONTEXT, rootSpan)
    for (const stage of stages) start(stage, within).end(hrTime(stage.endedAtMs))
    rootSpan.end(hrTime(root.endedAtMs))
  }
}

type SpanAttributesOf = NonNullable<SpanOptions['attributes']>

/** Seconds and nanoseconds. */
function hrTime(ms: number): HrTime {
  const seconds = Math.floor(ms / 1000)
  return [seconds, Math.round((ms - seconds * 1000) * 1e6)]
}
