// A process of a measurement: asked by messages, answers each. Sides and clients run apart, so that each has its own core
// and its own CPU time.
import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'

interface Answer {
  readonly id: number
  readonly result?: unknown
  readonly error?: string
}

/** The asking end. */
export class Child {
  readonly #process: ChildProcess
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>()
  #next = 1

  /** @param module beside this file, such as './sides/bare.ts' */
  constructor(module: string, execArgv: readonly string[] = []) {
    const path = fileURLToPath(new URL(module, import.meta.url))
    this.#process = fork(path, { execArgv: [...process.execArgv, ...execArgv], serialization: 'advanced' })
    this.#process.on('message', (answer: Answer) => {
      const waiting = this.#waiting.get(answer.id)
      this.#waiting.delete(answer.id)
      if (answer.error === undefined) waiting?.resolve(answer.result)
      else waiting?.reject(new Error(`${module}: ${answer.error}`))
    })
    this.#process.on('exit', code => {
      for (const waiting of this.#waiting.values()) waiting.reject(new Error(`${module} exited with ${code}`))
    })
  }

  ask<R>(question: string, options: object = {}): Promise<R> {
    const id = this.#next++
    const waiting = Promise.withResolvers<unknown>()
    this.#waiting.set(id, waiting)
    this.#process.send({ id, question, options })
    return waiting.promise as Promise<R>
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process.exitCode !== null) return
    const gone = new Promise(resolve => this.#process.once('exit', resolve))
    this.#process.disconnect()
    await gone
  }
}

/** The answering end. Leaves when the asking end does. @param answers by question */
export function answer(answers: Readonly<Record<string, (options: never) => unknown>>, leave: () => unknown): void {
  process.on('message', (message: { id: number; question: string; options: never }) => {
    const { id, question, options } = message
    Promise.resolve()
      .then(() => answers[question]!(options))
      .then(result => process.send?.({ id, result }))
      .catch((error: unknown) => process.send?.({ id, error: error instanceof Error ? error.stack : String(error) }))
  })
  // By itself at last, so that a profile of it is written.
  process.on('disconnect', () => void Promise.resolve(leave()).finally(() => process.exit(0)))
}

/** CPU time of this process, all threads, in microseconds. */
export function cpuMicros(): number {
  const { user, system } = process.cpuUsage()
  return user + system
}
