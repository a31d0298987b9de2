// Every refusal, over every wire: a documented code with its status, close code and hints, a message that shows nothing of
// the inside, and after each a delivery to a neighbour who was there before.
import { expect, test } from 'vitest'
import { ledger } from '../support/refused.ts'
import './refusals/questions.ts'
import './refusals/frames.ts'
import './refusals/channels.ts'
import './refusals/tokens.ts'
import './refusals/requests.ts'

// The last to run: those above are in the order of their imports.
test('[P8] at least 200 distinct pairs of input and code were refused, each followed by a delivery to a neighbour', () => {
  const codes = new Set([...ledger].map(pair => (JSON.parse(pair) as [unknown, string])[1]))
  console.log(`refusals: ${ledger.size} distinct pairs of input and code, ${codes.size} codes`)
  expect(ledger.size).toBeGreaterThanOrEqual(200)
})
