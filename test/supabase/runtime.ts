// Where Supabase's clients run that a scenario asks: in this process, or in a page of a browser.
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { chromium } from 'playwright-core'
import { rolldown } from 'rolldown'
import { findChromium } from '../support/chromium.ts'
import { Performer, type Tell, type Told } from './performer.ts'

type Method = Exclude<keyof Performer, symbol>
type Arguments<M extends Method> = Performer[M] extends (name: string, ...rest: infer Rest) => unknown ? Rest : never
type Answer<M extends Method> = Performer[M] extends (...args: never[]) => infer Result ? Awaited<Result> : never

export interface Runtime extends AsyncDisposable {
  readonly name: 'Node' | 'Chromium'
  ask<M extends Method>(method: M, client: string, ...rest: Arguments<M>): Promise<Answer<M>>
}

export async function startNodeRuntime(tell: Tell): Promise<Runtime> {
  const performer = new Performer(tell)
  return {
    name: 'Node',
    async ask<M extends Method>(method: M, client: string, ...rest: Arguments<M>) {
      return (await Reflect.apply(performer[method] as () => unknown, performer, [client, ...rest])) as Answer<M>
    },
    [Symbol.asyncDispose]: async () => {},
  }
}

/** One page, of another origin than the service. */
export async function startChromiumRuntime(tell: Tell): Promise<Runtime> {
  const input = fileURLToPath(new URL('page.ts', import.meta.url))
  await using build = await rolldown({ input, platform: 'browser', logLevel: 'silent' })
  const { output } = await build.generate({ format: 'iife', codeSplitting: false })
  const server = createServer((request, response) => {
    if (request.url === '/page.js') response.setHeader('content-type', 'text/javascript').end(output[0].code)
    else response.setHeader('content-type', 'text/html').end('<!doctype html><script src="/page.js"></script>')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const browser = await chromium.launch({
    executablePath: await findChromium(),
    args: ['--no-sandbox', '--disable-background-networking'],
  })
  const page = await browser.newPage()
  await page.exposeFunction('told', (client: string, topic: string | null, told: Told) => tell(client, topic, told))
  await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  return {
    name: 'Chromium',
    async ask<M extends Method>(method: M, client: string, ...rest: Arguments<M>) {
      return (await page.evaluate(
        ([name, args]) => {
          const { performer } = globalThis as unknown as { performer: Record<string, (...args: unknown[]) => unknown> }
          return performer[name as string]!(...(args as unknown[]))
        },
        [method, [client, ...rest]] as const,
      )) as Answer<M>
    },
    [Symbol.asyncDispose]: async () => {
      await browser.close()
      server.closeAllConnections()
      server.close()
    },
  }
}
