// Sends spans to a collector, counts what became of them, and tells the log once when they do not arrive, and once when they do again.
import type { SpanExporter } from '@opentelemetry/sdk-trace'
import type { OperatorCode } from '../../protocol/operator-codes.ts'
import type { Log } from '../log/log.ts'
import type { TracingPackages } from './packages.ts'

/** Also of what is sent again after an answer that asks for it. */
const timeoutMs = 3000
/** As many as the queue before it is cut into at the end. */
const maxAtOnce = 8

export interface TracesUrl {
  /** Of OTEL_EXPORTER_OTLP_ENDPOINT: `http://collector:4318`. */
  readonly endpoint: string
}

/** Source: OpenTelemetry, OTLP Exporter Configuration: the path of the signal is put behind the endpoint's. */
export function tracesUrl({ endpoint }: TracesUrl): string {
  const url = new URL(endpoint)
  url.pathname = `${url.pathname.replace(/\/+$/, '')}/v1/traces`
  return url.href
}

export function openSpanExporter(
  { exporter: { OTLPTraceExporter } }: TracingPackages,
  options: TracesUrl & {
    readonly log: Log
    /** Called with the number of traces: of root spans. */
    readonly onEnd: (fate: 'sent' | 'lost', traces: number) => void
  },
): SpanExporter {
  const inner = new OTLPTraceExporter({
    url: tracesUrl(options),
    timeoutMillis: timeoutMs,
    concurrencyLimit: maxAtOnce,
  })
  let isFailing = false
  return {
    export: (spans, done) =>
      inner.export(spans, result => {
        const traces = spans.filter(({ parentSpanContext }) => parentSpanContext === undefined).length
        // ExportResultCode.SUCCESS
        if (result.code === 0) {
          options.onEnd('sent', traces)
          if (isFailing) options.log.info('traces are sent again')
          isFailing = false
        } else {
          options.onEnd('lost', traces)
          if (!isFailing)
            options.log.warn(
              { code: 'TRACING_UNREACHABLE' satisfies OperatorCode, reason: reasonOf(result.error) },
              'traces cannot be sent, and are lost until they can; nothing else is harmed. Check OTEL_EXPORTER_OTLP_ENDPOINT',
            )
          isFailing = true
        }
        done(result)
      }),
    shutdown: () => inner.shutdown(),
  }
}

/** Its message may quote what the collector answered. */
function reasonOf(error: Error | undefined): string {
  const { code, cause } = (error ?? {}) as { code?: unknown; cause?: { code?: unknown } }
  return String(code ?? cause?.code ?? error?.name ?? 'unknown')
}
