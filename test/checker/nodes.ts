// The node under check: in this process, or as one of its own that can be killed.
import { freePort } from '../../src/cli/local-postgres.ts'
import { jwtSecret, TestNode } from '../support/node.ts'
import { startCli } from '../support/run-cli.ts'

export interface CheckedNode {
  readonly url: string
  /** What it says of itself when it should not: that it has ended. */
  readonly fault: () => string | null
  /** The end of its log, for the report. */
  readonly log: () => readonly string[]
  /** kill -9 where that is possible. */
  kill(): Promise<void>
  stop(): Promise<void>
}

/** How long the rows of a grant may be awaited before whoever waits starts over. */
export const maxHeldMs = 10_000

/** Small bounds, so that what is rare elsewhere is common here. */
export const nodeSettings: Readonly<Record<string, string>> = {
  SNAPSHOT_CHUNK_ROWS: '20',
  SEND_QUEUE_BYTES: '16384',
  AUDIENCE_GRACE_MS: '200',
  HEARTBEAT_MS: '1000',
  BEACON_MS: '200',
  MAX_FRAMES_PER_SECOND: '200',
  MAX_HELD_MS: String(maxHeldMs),
  SLOT_MAX_BYTES: '2147483648',
}

export async function startHere(databaseUrl: string, settings: Record<string, string> = {}): Promise<CheckedNode> {
  const node = await TestNode.start(databaseUrl, { ...nodeSettings, ...settings })
  const stop = (): Promise<void> => node[Symbol.asyncDispose]()
  return { url: node.url, fault: () => null, log: () => [], kill: stop, stop }
}

export async function startProcess(databaseUrl: string, settings: Record<string, string> = {}): Promise<CheckedNode> {
  const port = await freePort()
  const node = startCli(['start'], {
    ...nodeSettings,
    DATABASE_URL: databaseUrl,
    JWT_SECRET: jwtSecret,
    PORT: String(port),
    LOG_LEVEL: 'info',
    ...settings,
  })
  await node.until(({ out }) => out.includes('ready'))
  const log = (): readonly string[] => node.err.split('\n').slice(-30)
  const kill = async (): Promise<void> => {
    node.child.kill('SIGKILL')
    await node.end()
  }
  const fault = (): string | null => {
    const { exitCode, signalCode } = node.child
    return exitCode === null && signalCode === null ? null : `the node ended by itself: ${exitCode ?? signalCode}`
  }
  return { url: `http://127.0.0.1:${port}`, fault, log, kill, stop: kill }
}
