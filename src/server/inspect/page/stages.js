// The six stages of a commit's way, in words.

/** @typedef {import('../../figures/stage.ts').Stage} Stage */

/** @type {readonly { readonly stage: Stage, readonly does: string, readonly counts: readonly [one: string, many: string] | null }[]} */
export const stages = [
  { stage: 'wal', does: 'read from Postgres', counts: null },
  { stage: 'relay', does: 'kept for every node', counts: null },
  { stage: 'decode', does: 'bytes to changes', counts: ['change', 'changes'] },
  { stage: 'authorize', does: 'who may see it', counts: ['decision', 'decisions'] },
  { stage: 'route', does: 'who asked for it', counts: ['batch', 'batches'] },
  { stage: 'deliver', does: 'handed to sockets', counts: ['delivery', 'deliveries'] },
]
