import { expect, test } from 'vitest'
import { RunningProcess } from '../support/run-cli.ts'

const start = new URL('../../src/cli/commands/start.ts', import.meta.url).href
const signals = new URL('../../src/cli/signals.ts', import.meta.url).href
const config = new URL('../../src/server/config/config.ts', import.meta.url).href

/** `start` in a process of its own, around a server that does what the test says. */
function startAround(server: string): RunningProcess {
  const script = `
    import { createServer } from 'node:http'
    import { once } from 'node:events'
    import { start } from ${JSON.stringify(start)}
    import { stopSignal } from ${JSON.stringify(signals)}
    import { loadConfig } from ${JSON.stringify(config)}
    const config = loadConfig({ DATABASE_URL: 'postgres://db/app', JWT_SECRET: 'a secret of at least 32 bytes, of a test', PORT: '0' })
    const http = createServer()
    const listen = async port => (await once(http.listen(port, '127.0.0.1'), 'listening'), http.address().port)
    try { await start(config, ${server}, console.log, stopSignal()) } catch (error) { console.error(error.code, error.message); process.exit(1) }
    console.log('end')
    process.exit()`
  return new RunningProcess(['--input-type=module', '--eval', script])
}

test.each(['SIGINT', 'SIGTERM'] as const)(
  'start says when it listens and when it is ready, and %s ends it clean',
  async signal => {
    await using running = startAround(`async () => ({
    port: await listen(0), ready: async () => {}, ended: () => new Promise(() => {}), stop: async () => { http.close(); console.log('stopped') } })`)
    await running.until(({ out }) => out.includes('ready'))
    running.child.kill(signal)
    const { code, out } = await running.end()
    expect(code).toBe(0)
    expect(out.split('\n')).toEqual([
      expect.stringMatching(/^tidegate listens on http:\/\/127\.0\.0\.1:\d+$/),
      'tidegate is ready',
      'tidegate stops; a second signal forces it',
      'stopped',
      'end',
      '',
    ])
  },
)

test('a second signal forces an end that hangs', async () => {
  await using running = startAround(`async () => ({
    port: await listen(0), ready: async () => {}, ended: () => new Promise(() => {}), stop: () => { console.log('hangs'); return new Promise(() => {}) } })`)
  await running.until(({ out }) => out.includes('ready'))
  running.child.kill('SIGTERM')
  await running.until(({ out }) => out.includes('hangs'))
  running.child.kill('SIGTERM')
  expect((await running.end()).code).toBe(143)
})

test('a signal ends a start that waits for its database', async () => {
  await using running = startAround(
    `async () => { await listen(0); console.log('waits'); return new Promise(() => {}) }`,
  )
  await running.until(({ out }) => out.includes('waits'))
  running.child.kill('SIGTERM')
  expect((await running.end()).code).toBe(0)
})

test('a server that never gets ready is stopped, and the failure told', async () => {
  await using running = startAround(`async () => ({
    port: await listen(0), ready: async () => { throw new Error('no slot') }, ended: () => new Promise(() => {}), stop: async () => console.log('stopped') })`)
  const { code, out, err } = await running.end()
  expect([code, out.includes('stopped'), err.includes('no slot')]).toEqual([1, true, true])
})

test('a server whose stream ends for good is stopped, and the failure told, so that it can be started again', async () => {
  await using running = startAround(`async () => ({
    port: await listen(0), ready: async () => {},
    ended: async () => { await new Promise(resolve => setTimeout(resolve, 50)); throw new Error('no privilege') },
    stop: async () => console.log('stopped') })`)
  const { code, out, err } = await running.end()
  expect([code, out.includes('is ready'), out.includes('stopped'), err.includes('no privilege')]).toEqual([
    ...[1, true, true, true],
  ])
})

test('a port that is taken is an option that does not fit', async () => {
  await using running = startAround(`async () => {
    const port = await listen(0)
    await once(createServer().listen(port, '127.0.0.1'), 'listening') }`)
  const { err } = await running.end()
  expect(err).toContain('CONFIG_INVALID PORT is')
})
