// The addresses that give orders and explain what somebody sees.
import { answerJson, readBody } from '../deliver/exchange.ts'
import type { OperatorRoute } from './route.ts'

/** `GET /v1/explain`. @param explain answers the parameters of the URL; throws as `createExplainer` says */
export const explainRoute = (explain: (parameters: URLSearchParams) => Promise<object>): OperatorRoute => ({
  method: 'GET',
  path: '/v1/explain',
  answer: async exchange => answerJson(exchange, 200, JSON.stringify(await explain(exchange.parameters))),
})

/** `POST /v1/orders`. @param order answers a body when this node has carried it out; throws as `createOrderGiver` says */
export const ordersRoute = (order: (body: string) => Promise<object>, maxBodyBytes: number): OperatorRoute => ({
  method: 'POST',
  path: '/v1/orders',
  answer: async exchange => {
    const body = await readBody(exchange.request, maxBodyBytes)
    answerJson(exchange, 200, JSON.stringify(await order(body)))
  },
})
