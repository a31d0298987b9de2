// A Redis that says it is of another version: of those that are refused none is at hand.
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import type { RedisProcess } from './redis-process.ts'

/** Carries what clients and the server say, but for the version. @param version not longer than the server's own */
export async function disguised(redis: RedisProcess, version: string): Promise<{ url: string } & Disposable> {
  const own = /redis_version:(\S+)/.exec(String(await redis.ask('INFO', 'server')))![1]!
  const server = createServer(near => {
    const far = connect(redis.port, '127.0.0.1')
    near.pipe(far)
    far.on('data', data => {
      // As long as it was, since the reply says how long it is.
      const told = data
        .toString('latin1')
        .replace(`redis_version:${own}`, `redis_version:${version.padEnd(own.length)}`)
      near.write(told, 'latin1')
    })
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const)
      socket.on('error', () => {}).on('close', () => other.destroy())
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  return { url: `redis://127.0.0.1:${port}`, [Symbol.dispose]: () => void server.close() }
}
