// The published packages in Node.
import { startNodeRuntime } from './runtime.ts'
import { playEverywhere } from './suite.ts'

playEverywhere('Node', startNodeRuntime)
