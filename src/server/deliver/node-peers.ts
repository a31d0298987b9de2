// Questions to other nodes, and this one's answers to theirs.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Log } from '../log/log.ts'
import { repeated } from '../log/log-repeated.ts'
import type { NodeMail } from '../nodes/node-mail.ts'
import type { Peers } from './peers.ts'

/** More than a node takes to answer. */
const answeredWithinMs = 10_000

type Letter =
  | { readonly ask: number; readonly from: string; readonly text: string }
  | { readonly answer: number; readonly text: string }

export class NodePeers implements Peers {
  readonly #mail: NodeMail
  readonly #log: Log
  /** Questions that wait for their answer: at most one for each request of this node. */
  readonly #asked = new Map<number, (answer: string) => void>()
  #count = 0
  #answer: ((question: string) => Promise<string>) | null = null

  constructor(mail: NodeMail, log: Log) {
    this.#mail = mail
    this.#log = log
    mail.hear(text => this.#heard(text))
  }

  get nodeId(): string {
    return this.#mail.nodeId
  }

  answerBy(answer: (question: string) => Promise<string>): void {
    this.#answer = answer
  }

  async ask(nodeId: string, text: string): Promise<string | null> {
    this.#count += 1
    const ask = this.#count
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    const late = (): void => reject(new TidegateError('UNAVAILABLE', 'the node that has the stream does not answer'))
    const timer = setTimeout(late, answeredWithinMs)
    this.#asked.set(ask, resolve)
    try {
      const heard = await this.#mail.tell(nodeId, letterOf({ ask, from: this.nodeId, text }))
      return heard === 0 ? null : await promise
    } finally {
      clearTimeout(timer)
      this.#asked.delete(ask)
    }
  }

  #heard(text: string): void {
    let letter: Letter
    try {
      letter = JSON.parse(text)
    } catch (error) {
      repeated(this.#log).warn(
        { err: error },
        'what another node said cannot be read; if all nodes run the same release, report it',
      )
      return
    }
    if ('answer' in letter) this.#asked.get(letter.answer)?.(letter.text)
    else void this.#reply(letter)
  }

  async #reply({ ask, from, text }: Extract<Letter, { ask: number }>): Promise<void> {
    if (this.#answer === null) return
    const answer = await this.#answer(text)
    try {
      await this.#mail.tell(from, letterOf({ answer: ask, text: answer }))
    } catch (error) {
      // It asks again.
      this.#log.debug({ err: error }, 'could not answer another node')
    }
  }
}

const letterOf = (letter: Letter): string => JSON.stringify(letter)
