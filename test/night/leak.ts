// Loaded into a node (`--import`): keeps a little of everything, as a mistake would.
import { openSync } from 'node:fs'

const kept: unknown[] = []
setInterval(() => kept.push(new Array(10_000).fill(kept.length)), 50).unref()
setInterval(() => kept.push(openSync('/dev/null', 'r')), 2000).unref()
