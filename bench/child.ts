// A process of a measurement: asked by messages, answers each. Sides and clients run apart, so that each has its own core
// and its own CPU time.
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { IdleMemory } from '../src/server/process/idle-memory.ts'

interface Answer {
  readonly id: number
  readonly result?: unknown
  readonly error?: string
}

export interface ChildOptions {
  readonly execArgv?: readonly string[]
  /** The one processor it runs on, where that can be had: a sender and its clients then never share one for a while. */
  readonly cpu?: 0 | 1
}

const canPin = existsSync('/usr/bin/taskset') && availableParallelism() > 1

/** The asking end. */
export class Child {
  readonly #process: ChildProcess
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>()
  #next = 1

  /** @param module beside this file, such as './sides/bare.ts' */
  constructor(module: string, { execArgv = [], cpu }: ChildOptions = {}) {
    const path = fileURLToPath(new URL(module, import.meta.url))
    const node = [process.execPath, ...process.execArgv, ...execArgv, path]
    const [command, ...args] = cpu === undefined || !canPin ? node : ['taskset', '-c', String(cpu), ...node]
    this.#process = spawn(command!, args, {
      stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
      serialization: 'advanced',
    })
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

/** What this process weighs once it has rested: garbage collected, and what V8 holds without need given back, as
 *  `tidegate start` does by itself. For every side alike. */
export async function restedMemory(): Promise<NodeJS.MemoryUsage> {
  // V8 looks for what to give back after a collection.
  globalThis.gc?.()
  const idle = new IdleMemory({ quietMs: 500, busyFrom: 1.1 })
  while (!idle.isRested) await new Promise(resolve => setTimeout(resolve, 100))
  idle.stop()
  return process.memoryUsage()
}
