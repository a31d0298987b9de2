import { createServer, get, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, test } from 'vitest'
import { Balancer } from './balancer.ts'
import { until } from './stalled.ts'

/** A node that says its name, and whether it is ready. */
async function startNode(name: string): Promise<AsyncDisposable & { url: string; isReady: boolean }> {
  const server: Server = createServer((request, response) => {
    response.statusCode = request.url === '/ready' && !node.isReady ? 503 : 200
    response.end(name)
  })
  const node = {
    url: '',
    isReady: true,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      server.close()
    },
  }
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  node.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return node
}

/** @returns the name that answered, and the name by the balancer */
const ask = (balancer: Balancer): Promise<[string, string | undefined]> =>
  new Promise((resolve, reject) => {
    get(balancer.url, { agent: false }, response => {
      const behind = balancer.behind(response.socket.localPort!)
      response.setEncoding('utf8').on('data', (name: string) => resolve([name, behind]))
    }).on('error', reject)
  })

const askOften = async (balancer: Balancer): Promise<string[]> => {
  const names = new Set<string>()
  for (let i = 0; i < 30; i++) {
    const [name, behind] = await ask(balancer)
    expect(behind).toBe(name)
    names.add(name)
  }
  return [...names].sort()
}

test('whoever comes again meets any node that is ready, and it is known which', async () => {
  await using ada = await startNode('ada')
  await using ben = await startNode('ben')
  await using balancer = await Balancer.start({ readyPath: '/ready', askEveryMs: 20 })
  let process = 'ada'
  balancer.add('ada', ada.url, () => process)
  balancer.add('ben', ben.url)
  await until(() => balancer.ready.length === 2)
  expect(await askOften(balancer)).toEqual(['ada', 'ben'])
  ben.isReady = false
  await until(() => balancer.ready.length === 1)
  expect(await askOften(balancer)).toEqual(['ada'])
  process = 'another ada'
  expect(await ask(balancer)).toEqual(['ada', 'another ada'])
  balancer.remove('ada')
  // Nobody is ready: anybody is better than nobody.
  expect(await askOften(balancer)).toEqual(['ben'])
})
