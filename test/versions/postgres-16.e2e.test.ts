import { suiteOf } from './suite.ts'

suiteOf(16)
