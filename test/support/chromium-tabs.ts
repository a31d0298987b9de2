// Tabs of a Chromium as a user has them: one is looked at, those behind it are hidden, slowed down and can be frozen, and what is left can be
// come back to. Playwright keeps every page as if it were looked at; this speaks the DevTools protocol itself.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect } from 'vitest'
import { WebSocket } from 'ws'
import { findChromium } from './chromium.ts'
import { eventually } from './eventually.ts'

interface Answer {
  readonly id?: number
  readonly result?: unknown
  readonly error?: { readonly message: string }
}

export class ChromiumTabs implements AsyncDisposable {
  readonly #process: ChildProcess
  readonly #profile: string
  readonly #socket: WebSocket
  /** By number of the command, until it is answered. */
  readonly #asked = new Map<number, PromiseWithResolvers<unknown>>()
  #lastId = 0

  private constructor(process: ChildProcess, profile: string, socket: WebSocket) {
    this.#process = process
    this.#profile = profile
    this.#socket = socket
    socket.on('message', data => {
      const { id, result, error } = JSON.parse(String(data)) as Answer
      const asked = this.#asked.get(id ?? 0)
      this.#asked.delete(id ?? 0)
      if (error === undefined) asked?.resolve(result)
      else asked?.reject(new Error(error.message))
    })
  }

  /** @param args more switches of Chromium */
  static async start(args: readonly string[] = []): Promise<ChromiumTabs> {
    const profile = await mkdtemp(join(tmpdir(), 'chromium-'))
    const switches = [
      '--headless',
      '--no-sandbox',
      '--no-first-run',
      '--disable-gpu',
      '--disable-background-networking',
    ]
    const chromium = spawn(
      await findChromium(),
      [...switches, '--remote-debugging-port=0', `--user-data-dir=${profile}`, ...args, 'about:blank'],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    )
    let told = ''
    for await (const line of createInterface(chromium.stderr!)) {
      told += `${line}\n`
      const address = /^DevTools listening on (\S+)/.exec(line)?.[1]
      if (address === undefined) continue
      // Else it stops when nobody takes what it tells.
      chromium.stderr!.resume()
      const socket = new WebSocket(address)
      await once(socket, 'open')
      return new ChromiumTabs(chromium, profile, socket)
    }
    throw new Error(`Chromium ended: ${told}`)
  }

  /** A tab in front of the others. @param context what storage and cookies it shares; default: those of nobody else */
  async open(url: string, context?: string): Promise<ChromiumTab> {
    const browserContextId =
      context ?? (await this.send<{ browserContextId: string }>('Target.createBrowserContext')).browserContextId
    const { targetId } = await this.send<{ targetId: string }>('Target.createTarget', { url, browserContextId })
    const { sessionId } = await this.send<{ sessionId: string }>('Target.attachToTarget', { targetId, flatten: true })
    const tab = new ChromiumTab(this, { context: browserContextId, targetId, sessionId })
    await tab.show()
    return tab
  }

  send<T>(method: string, params: object = {}, sessionId?: string): Promise<T> {
    const asked = Promise.withResolvers<unknown>()
    this.#lastId += 1
    this.#asked.set(this.#lastId, asked)
    this.#socket.send(JSON.stringify({ id: this.#lastId, method, params, sessionId }))
    return asked.promise as Promise<T>
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = once(this.#process, 'exit')
    this.#process.kill('SIGTERM')
    await ended
    this.#socket.terminate()
    await rm(this.#profile, { recursive: true, force: true, maxRetries: 5 })
  }
}

export class ChromiumTab implements AsyncDisposable {
  readonly context: string
  readonly #browser: ChromiumTabs
  readonly #targetId: string
  readonly #sessionId: string

  constructor(browser: ChromiumTabs, ids: { context: string; targetId: string; sessionId: string }) {
    this.context = ids.context
    this.#browser = browser
    this.#targetId = ids.targetId
    this.#sessionId = ids.sessionId
  }

  send<T>(method: string, params: object = {}): Promise<T> {
    return this.#browser.send<T>(method, params, this.#sessionId)
  }

  /** Looks at it: the others of its context are hidden. */
  async show(): Promise<void> {
    await this.#browser.send('Target.activateTarget', { targetId: this.#targetId })
  }

  /** @param expression of what can be written as JSON, or a promise of it @throws what it throws */
  async evaluate<T>(expression: string): Promise<T> {
    const options = { expression, returnByValue: true, awaitPromise: true }
    const { result, exceptionDetails } = await this.send<{
      result: { value: T }
      exceptionDetails?: { exception?: { description?: string }; text: string }
    }>('Runtime.evaluate', options)
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text)
    return result.value
  }

  /** @returns when the page is there, and its scripts have run */
  async go(url: string): Promise<void> {
    await this.#leave(() => this.send('Page.navigate', { url }))
  }

  async reload(): Promise<void> {
    await this.#leave(() => this.send('Page.reload'))
  }

  /** Closes it as a user does, without asking it. */
  async close(): Promise<void> {
    await this.#browser.send('Target.closeTarget', { targetId: this.#targetId })
  }

  async #leave(go: () => Promise<unknown>): Promise<void> {
    await this.evaluate('globalThis.isLeft = true')
    await go()
    const isThere = '!globalThis.isLeft && document.readyState === "complete"'
    await eventually(async () => expect(await this.evaluate(isThere)).toBe(true))
  }

  /** With all that its context kept. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#browser.send('Target.disposeBrowserContext', { browserContextId: this.context })
  }
}
