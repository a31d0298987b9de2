// A thread of channel-clients.ts: one member of each node, who entered last, and counts.
import { workerData } from 'node:worker_threads'
import { Member, type Members } from './member.ts'

const { members, counts } = workerData as { readonly members: Members; readonly counts: Int32Array }

const count = (at: 0 | 1): void => {
  Atomics.add(counts, at, 1)
  Atomics.notify(counts, at)
}

for (let i = 0; i < members.count; i++) {
  const member: Member = new Member(members, i, {
    opened: () => member.join(),
    joined: () => count(0),
    delivered: () => count(1),
    present: () => {},
  })
}
