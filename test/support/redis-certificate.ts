// A certificate for a Redis on 127.0.0.1, and the authority that signed it, made anew by openssl.
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { programFromPackage } from './debian-package.ts'

export interface RedisCertificate {
  /** PEM. */
  readonly authority: string
  readonly authorityFile: string
  /** Of redis.conf. */
  readonly settings: Readonly<Record<string, string>>
}

export async function redisCertificate(folder: string): Promise<RedisCertificate> {
  const openssl = await programFromPackage(['openssl'], 'openssl')
  const file = (name: string): string => join(folder, name)
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-x509']
  const run = (...line: string[]): Promise<unknown> => promisify(execFile)(openssl, line)
  await run('req', ...key, '-subj', '/CN=authority', '-keyout', file('ca.key'), '-out', file('ca.crt'))
  await run(
    ...['req', ...key, '-subj', '/CN=redis', '-addext', 'subjectAltName=IP:127.0.0.1'],
    ...['-addext', 'basicConstraints=critical,CA:FALSE', '-CA', file('ca.crt'), '-CAkey', file('ca.key')],
    ...['-keyout', file('redis.key'), '-out', file('redis.crt')],
  )
  return {
    authority: await readFile(file('ca.crt'), 'utf8'),
    authorityFile: file('ca.crt'),
    settings: {
      'tls-cert-file': file('redis.crt'),
      'tls-key-file': file('redis.key'),
      'tls-ca-cert-file': file('ca.crt'),
    },
  }
}
