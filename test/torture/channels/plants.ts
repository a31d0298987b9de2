// The mistakes that channels between nodes invite. Each breaks what keeps a promise, and nothing else.
import type { Change } from '../plant.ts'

const lossy: Change = {
  file: 'channels/relay/redis-relay-subscriber.ts',
  text: "else if (heard.kind === 'message') for (const listener of entry.listeners)",
  instead:
    "else if (heard.kind === 'message' && Math.random() < 0.05) return\n      else if (heard.kind === 'message') for (const listener of entry.listeners)",
}

export const channelPlants: Readonly<Record<string, readonly Change[]>> = {
  'a member that stays at a revocation': [
    {
      file: 'channels/channel-member.ts',
      text: 'if (hasLost) this.fail(noLonger(this.channel.name))',
      instead: 'if (hasLost) return',
    },
  ],
  'stamps that nobody looks at': [
    {
      file: 'channels/stream-stand.ts',
      text: 'return this.hasPassed(stamp) && !(isPrivate && this.standsStill())',
      instead: 'return true',
    },
  ],
  /** No mistake: it is read from the history, or told as a gap. */
  'messages lost between nodes': [lossy],
  'messages lost between nodes, and holes that nobody notices': [
    lossy,
    {
      file: 'channels/sequence.ts',
      text: 'const missed = seq - this.#seq - 1n',
      instead: 'const missed = 0n',
    },
  ],
  'commits appended to a history again': [
    {
      file: 'channels/sql/wal-appender.ts',
      text: 'this.#queue = this.#queue.slice(drafts.length)',
      instead: 'this.#queue = Math.random() < 0.1 ? this.#queue : this.#queue.slice(drafts.length)',
    },
    {
      file: 'channels/relay/redis-relay-scripts.ts',
      text: 'if of == newOf and newAt <= at then',
      instead: "if of == newOf and newAt <= '' then",
    },
  ],
  'a history that goes on after it was lost': [
    {
      file: 'channels/message.ts',
      text: 'epoch === at.epoch && at.seq <= seq',
      instead: 'epoch === at.epoch',
    },
  ],
  'somebody present who has left': [
    {
      file: 'channels/channels.ts',
      text: "this.untrack(member, how).catch(error => this.#options.log.debug({ err: error }, 'a leave is told later'))",
      instead: 'void how',
    },
  ],
}
