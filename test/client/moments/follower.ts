// A program that follows the messages its user may read, and prints what the client says, a line each. Run as a process of its own, so
// that it can be stopped as a laptop's lid stops it.
//   node follower.ts   with TIDEGATE_URL, USER_ID, JWT_SECRET, TOKEN_SECONDS, and TIMER_GRAIN_MS for a page in the background
import { SignJWT } from 'jose'
import { createClient } from '../../../src/client/client.ts'

const { TIDEGATE_URL, USER_ID, JWT_SECRET, TOKEN_SECONDS, TIMER_GRAIN_MS } = process.env as Record<string, string>

/** As a browser does to a page nobody looks at: timers fire only at whole multiples of the grain. */
if (TIMER_GRAIN_MS !== undefined) {
  const grainMs = Number(TIMER_GRAIN_MS)
  const exact = globalThis.setTimeout
  const coarse = (run: () => void, afterMs = 0): NodeJS.Timeout => {
    const due = Date.now() + afterMs
    return exact(run, Math.ceil(due / grainMs) * grainMs - Date.now())
  }
  globalThis.setTimeout = coarse as typeof setTimeout
}

const say = (what: object): void => console.log(JSON.stringify(what))

const tide = createClient<{ messages: { id: number; body: string } }>(TIDEGATE_URL!, {
  // Alone: a machine that is slow to answer a handshake is no reason to go on over another.
  transports: ['websocket'],
  token: () => {
    say({ token: 'asked' })
    return new SignJWT({ role: 'authenticated', sub: USER_ID! })
      .setProtectedHeader({ alg: 'HS256' })
      .setExpirationTime(Math.floor(Date.now() / 1000) + Number(TOKEN_SECONDS ?? 3600))
      .sign(new TextEncoder().encode(JWT_SECRET))
  },
})
tide.onStatus(status => say({ status: status.name, at: Date.now() }))
tide
  .from('messages')
  .live()
  .subscribe(({ status, rows }) =>
    say({ feed: status, held: [rows.length, rows.reduce((sum, { id }) => sum + id, 0)] }),
  )
tide
  .from('messages')
  .changes({ onResync: ({ code }) => say({ resync: code }) }, ({ op, key }) => say({ op, id: key?.id ?? null }))
