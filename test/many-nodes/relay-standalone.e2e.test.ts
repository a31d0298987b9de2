// The promises of one node, kept with a journal in a Redis of its own.
import { testOverRelay } from './relay-suites.ts'

testOverRelay('standalone', 'all')
