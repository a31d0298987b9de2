// A certificate authority of a test, with openssl: certificates for servers and clients, valid or expired.
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

export interface Certificate {
  /** Files. */
  readonly cert: string
  readonly key: string
}

export class Authority {
  /** Its own certificate. */
  readonly ca: string
  readonly #folder: string
  #made = 0

  private constructor(folder: string) {
    this.#folder = folder
    this.ca = join(folder, 'ca.crt')
  }

  static async create(): Promise<Authority> {
    const folder = await mkdtemp(join(tmpdir(), 'tidegate-authority-'))
    const [key, cert] = [join(folder, 'ca.key'), join(folder, 'ca.crt')]
    await run('openssl', [
      ...['req', '-x509', ...newKey, '-keyout', key, '-out', cert, '-days', '2'],
      ...['-subj', '/CN=an authority of the tests', '-addext', 'basicConstraints=critical,CA:TRUE'],
    ])
    return new Authority(folder)
  }

  /** @param names as subjectAltName has them: `DNS:localhost`; for a client none
   *  @param days negative: it has expired */
  async issue(commonName: string, names: string, days = 2): Promise<Certificate> {
    const name = join(this.#folder, String(++this.#made))
    const [key, request, cert] = [`${name}.key`, `${name}.csr`, `${name}.crt`]
    await run('openssl', ['req', ...newKey, '-keyout', key, '-out', request, '-subj', `/CN=${commonName}`])
    await writeFile(`${name}.ext`, names === '' ? 'basicConstraints=CA:FALSE' : `subjectAltName=${names}`)
    await run('openssl', [
      ...['x509', '-req', '-in', request, '-out', cert, '-days', String(days), '-extfile', `${name}.ext`],
      ...['-CA', this.ca, '-CAkey', join(this.#folder, 'ca.key'), '-CAcreateserial'],
    ])
    return { cert, key }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true })
  }
}

const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
