// How nodes hand each other what came to the wrong one: types only; node-peers.ts is for many nodes, one alone has none.

export interface Peers {
  /** Names this node to the others: letters and digits. */
  readonly nodeId: string
  /** @returns what the node answers; null when there is no such node @throws UNAVAILABLE */
  ask(nodeId: string, question: string): Promise<string | null>
  /** What this node answers. @param answer never rejects */
  answerBy(answer: (question: string) => Promise<string>): void
}
