// The packages of OpenTelemetry are not installed with this one: whoever exports traces installs them.
import { TidegateError } from '../../protocol/tidegate-error.ts'

export const tracingPackages = [
  '@opentelemetry/api',
  '@opentelemetry/sdk-trace',
  '@opentelemetry/resources',
  '@opentelemetry/exporter-trace-otlp-http',
] as const

/** @throws TRACING_MISSING with the command that installs them */
export async function loadTracingPackages() {
  try {
    const [api, sdk, resources, exporter] = await Promise.all([
      import('@opentelemetry/api'),
      import('@opentelemetry/sdk-trace'),
      import('@opentelemetry/resources'),
      import('@opentelemetry/exporter-trace-otlp-http'),
    ])
    return { api, sdk, resources, exporter }
  } catch (cause) {
    if ((cause as { code?: unknown }).code !== 'ERR_MODULE_NOT_FOUND') throw cause
    throw new TidegateError(
      'TRACING_MISSING',
      `OTEL_EXPORTER_OTLP_ENDPOINT is set, and packages that send traces are not installed: npm install ${tracingPackages.join(' ')}`,
      { cause },
    )
  }
}

export type TracingPackages = Awaited<ReturnType<typeof loadTracingPackages>>
