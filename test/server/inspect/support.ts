// Asks a node as its operator.
import { expect } from 'vitest'
import { type SseEvent, SseStream } from '../../support/node.ts'

export const operatorToken = 'an-operators-token-of-32-letters'

export const operatorHeaders = { authorization: `Bearer ${operatorToken}` }

/** @throws unless it is answered with 200 */
export async function inspected<T>({ url }: { readonly url: string }, path: string): Promise<T> {
  const response = await fetch(`${url}/v1/inspect/${path}`, { headers: operatorHeaders })
  if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`)
  return (await response.json()) as T
}

/** @param path `stream`, or `watch` with its parameters */
export const inspecting = (
  node: { readonly url: string },
  path: string,
  parameters: Readonly<Record<string, string>> = {},
): Promise<SseStream> =>
  SseStream.open(node, `/v1/inspect/${path}?${new URLSearchParams(parameters).toString()}`, operatorToken)

/** The same once there is room: the node may not know yet that others have gone. */
export async function admitted(...request: Parameters<typeof inspecting>): Promise<SseStream> {
  let stream = await inspecting(...request)
  await expect
    .poll(async () => {
      if (stream.errorBody.code === 'BUSY') stream = await inspecting(...request)
      return stream.status
    })
    .toBe(200)
  return stream
}

/** The data of all events of a name. */
export const dataOf = <T>({ events }: { readonly events: readonly SseEvent[] }, name: string): T[] =>
  events.filter(({ event }) => event === name).map(({ data }) => data as T)
