// A process of a test, asked by messages: the node under test and its crowd each run in one of their own, so that each is
// weighed alone and neither waits for the other's event loop.
import { type ChildProcess, execFileSync, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

interface Answer {
  readonly id: number
  readonly result?: unknown
  readonly error?: string
}

/** The asking end. `ask` is typed by the answers that the program exports. */
export class Child<Answers extends Record<string, (options: never) => unknown>> {
  readonly #process: ChildProcess
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>()
  #next = 1

  /** @param name of a program in this folder */
  constructor(name: string) {
    const path = fileURLToPath(new URL(`./${name}.ts`, import.meta.url))
    // NODE_OPTIONS and the like of the test runner are not the program's.
    this.#process = fork(path, {
      execArgv: ['--expose-gc'],
      env: { PATH: process.env.PATH },
      serialization: 'advanced',
    })
    this.#process.on('message', (answer: Answer) => {
      const waiting = this.#waiting.get(answer.id)
      this.#waiting.delete(answer.id)
      if (answer.error === undefined) waiting?.resolve(answer.result)
      else waiting?.reject(new Error(`${name}: ${answer.error}`))
    })
    this.#process.on('exit', code => {
      for (const waiting of this.#waiting.values()) waiting.reject(new Error(`${name} exited with ${code}`))
    })
  }

  ask<Question extends keyof Answers & string>(
    question: Question,
    options: Parameters<Answers[Question]>[0] | Record<string, never> = {},
  ): Promise<Awaited<ReturnType<Answers[Question]>>> {
    const id = this.#next++
    const waiting = Promise.withResolvers<unknown>()
    this.#waiting.set(id, waiting)
    this.#process.send({ id, question, options })
    return waiting.promise as Promise<Awaited<ReturnType<Answers[Question]>>>
  }

  /** Without a word, as a machine that fails. */
  async kill(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return
    const gone = once(this.#process, 'exit')
    this.#process.kill('SIGKILL')
    await gone
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
  }
}

/** The answering end. Leaves when the asking end does. @param answers by question */
export function answer(answers: Readonly<Record<string, (options: never) => unknown>>): void {
  process.on('message', ({ id, question, options }: { id: number; question: string; options: never }) => {
    Promise.resolve()
      .then(() => answers[question]!(options))
      .then(result => process.send?.({ id, result }))
      .catch((error: unknown) => process.send?.({ id, error: error instanceof Error ? error.stack : String(error) }))
  })
  process.on('disconnect', () => process.exit(0))
}

/** @throws when the processes of a test may not open so many sockets; Node itself goes up to the hard limit */
export function assertOpenFiles(sockets: number): void {
  const needed = sockets + 200
  const limit = execFileSync('sh', ['-c', 'ulimit -n'], { encoding: 'utf8' }).trim()
  if (limit === 'unlimited' || Number(limit) >= needed) return
  throw new Error(
    `${sockets} sockets in one process need ${needed} open files, and this shell allows ${limit}: run "ulimit -n ${needed}" before the tests, or raise the hard limit (nofile in /etc/security/limits.conf, LimitNOFILE= of a unit, --ulimit nofile=${needed} of a container)`,
  )
}
