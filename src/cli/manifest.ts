// What the package says of itself.
import { readFileSync } from 'node:fs'
import { TidegateError } from '../protocol/tidegate-error.ts'

export interface Manifest {
  readonly version: string
  readonly engines: { readonly node: string }
  readonly devDependencies: Readonly<Record<string, string>>
}

/** At the same place seen from the sources and from what is built of them. */
export const readManifest = (): Manifest =>
  JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as Manifest

/** npm only warns of it.
 *  @param version as `24.1.0` @throws NODE_TOO_OLD */
export function requireNode({ engines }: Manifest, version: string): void {
  const needed = Number(/\d+/.exec(engines.node)?.[0])
  if (Number.parseInt(version, 10) < needed)
    throw new TidegateError('NODE_TOO_OLD', `this is Node ${version}, and Tidegate needs ${needed} or later`)
}
