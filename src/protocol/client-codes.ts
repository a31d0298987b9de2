// What the client's code finds out by itself and no server sends: the `error` of a query's state, beside the codes of the server.

export const clientCodes = {
  CONNECTION_LOST: {
    meaning: 'The connection ended without a reason of the server.',
    remedy: 'Nothing: the client comes back by itself and resumes.',
  },
  TRANSPORT_BLOCKED: {
    meaning: 'The page, or where it runs, forbids a transport; the client takes the next one.',
    remedy: 'Allow the address in connect-src of the Content-Security-Policy, for wss: and https: alike.',
  },
  TOKEN_UNAVAILABLE: {
    meaning: 'The token callback failed; the client asks it again later.',
    remedy: 'Mend the callback given as `token`; the message has its error.',
  },
  PROTOCOL_ERROR: {
    meaning: 'The server sent what cannot follow from the rows held; the client starts that query over.',
    remedy: 'Report it with the message: this is a fault of Tidegate.',
  },
  CLIENT_CLOSED: {
    meaning: 'The client was closed, or its user logged out, before an answer came.',
    remedy: 'Nothing, if that was meant; else ask again with a client that is open.',
  },
  CLIENT_OFFLINE: {
    meaning: 'A message was to be sent to a channel while the client was offline, and was not to wait.',
    remedy: 'Send it when the status says so, or let it wait: `offlineSends`, or `offline: "wait"` with the message.',
  },
  SEND_QUEUE_FULL: {
    meaning: 'As many messages wait to be sent to a channel as may.',
    remedy: 'Await what is sent, or raise `max` and `maxBytes` of `offlineSends`.',
  },
  SEND_TIMEOUT: {
    meaning: 'A message was not answered within its `timeoutMs`: it was sent or not.',
    remedy: 'Send it again under the same `idempotencyKey`, or leave it.',
  },
  SEND_UNCERTAIN: {
    meaning:
      'The link was lost before the answer to a message, and the client was away for longer than the channel knows idempotency keys: it was sent or not.',
    remedy: 'Look into the history or ask the user; raise `idempotency` in the rule of the channel.',
  },
  URL_INVALID: {
    meaning: 'The address given to the client is none of HTTP.',
    remedy: 'Give the base address of the service: https://tide.example.com.',
  },
} as const
