// An address that answers what this node holds now, as JSON.
import { answerJson } from '../deliver/exchange.ts'
import type { OperatorRoute } from '../operator/route.ts'

/** Those who ask at the same time share one walk. @param look finds what is answered */
export function answersRoute(path: string, look: () => Promise<object>): OperatorRoute {
  let looking: Promise<Buffer> | null = null
  const lookOnce = async (): Promise<Buffer> => {
    try {
      return Buffer.from(JSON.stringify(await look()))
    } finally {
      looking = null
    }
  }
  return {
    method: 'GET',
    path,
    answer: async exchange => {
      looking ??= lookOnce()
      answerJson(exchange, 200, await looking)
    },
  }
}
