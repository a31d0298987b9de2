// The published packages in a page of a real browser.
import { startChromiumRuntime } from './runtime.ts'
import { playEverywhere } from './suite.ts'

playEverywhere('Chromium', startChromiumRuntime)
