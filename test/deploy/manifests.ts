// What stands in the files of deploy/, as those read it who run them.
import { readFileSync } from 'node:fs'
import { parseAllDocuments } from 'yaml'

export interface Probe {
  readonly httpGet: { readonly path: string; readonly port: string }
  readonly periodSeconds: number
  readonly failureThreshold: number
}

export interface Container {
  readonly args: readonly string[]
  readonly env: readonly { readonly name: string; readonly valueFrom: { readonly secretKeyRef: SecretKey } }[]
  readonly ports: readonly { readonly name: string; readonly containerPort: number }[]
  readonly livenessProbe: Probe
  readonly readinessProbe: Probe
  readonly startupProbe: Probe
  readonly resources: { readonly limits: Readonly<Record<string, string>> }
  readonly securityContext: object
}

interface SecretKey {
  readonly name: string
  readonly key: string
}

interface Labels {
  readonly [name: string]: string
}

export interface Manifest {
  readonly kind: string
  readonly metadata: { readonly name: string; readonly labels: Labels }
  readonly data?: Readonly<Record<string, string>>
  // Of each kind another.
  // biome-ignore lint/suspicious/noExplicitAny: it is looked into place by place
  readonly spec?: any
}

export const readDeploy = (name: string): string =>
  readFileSync(new URL(`../../deploy/${name}`, import.meta.url), 'utf8')

/** @throws where it is no YAML */
export function manifestsOf(name: string): readonly Manifest[] {
  return parseAllDocuments(readDeploy(name)).map(document => {
    if (document.errors.length > 0) throw document.errors[0]
    return document.toJS() as Manifest
  })
}

export function manifest(kind: string, name = 'tidegate', file = 'kubernetes/tidegate.yaml'): Manifest {
  const found = manifestsOf(file).find(each => each.kind === kind && each.metadata.name === name)
  if (found === undefined) throw new Error(`there is no ${kind} ${name} in ${file}`)
  return found
}

/** The one container of a Deployment or Job. */
export const containerOf = ({ spec }: Manifest): Container => spec.template.spec.containers[0]
