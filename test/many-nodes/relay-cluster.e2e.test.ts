// The promises of one node, kept with a journal in a Redis Cluster.
import { testOverRelay } from './relay-suites.ts'

testOverRelay('cluster', 'commands')
