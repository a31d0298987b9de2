// An address for those who run the service: below the operator's token, on ADMIN_PORT if that is set.
import type { Exchange } from '../deliver/exchange.ts'

export interface OperatorRoute {
  readonly method: 'GET' | 'POST'
  /** Whole: `/metrics`. */
  readonly path: string
  /** Answered without a token: a page that holds nothing and asks for the token itself. */
  readonly isOpen?: boolean
  /** @throws TidegateError with a peer code, before anything is answered */
  answer(exchange: Exchange): Promise<void>
}
