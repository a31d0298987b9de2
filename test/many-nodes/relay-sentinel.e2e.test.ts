// The promises of one node, kept with a journal in a Redis behind Sentinels.
import { testOverRelay } from './relay-suites.ts'

testOverRelay('sentinel', 'commands')
