import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { type Activity, defaultRestLimits, nextRest, type Rest } from '../../../src/server/process/idle-memory.ts'

const MiB = 1024 * 1024
const at = (seconds: number, utilization: number, heapMiB = 100): Activity => ({
  now: seconds * 1000,
  utilization,
  heapBytes: heapMiB * MiB,
})
const after = (rest: Rest, activities: readonly Activity[]): Rest =>
  activities.reduce((last, activity) => nextRest(last, activity, defaultRestLimits), rest)
const working: Rest = { state: 'working', quietSince: null }

test('[P7] memory is asked back after ten quiet seconds, for twelve, and then left alone', () => {
  expect(after(working, [at(1, 0.09), at(10, 0.09)])).toEqual({ state: 'working', quietSince: 1000 })
  const asking = after(working, [at(1, 0.09), at(11, 0.09)])
  expect(asking).toEqual({ state: 'asking', until: 23_000 })
  expect(after(asking, [at(22, 0.3)])).toBe(asking)
  const rested = after(asking, [at(23, 0.1, 60)])
  expect(rested).toEqual({ state: 'rested', heapBytes: 60 * MiB, until: 323_000 })
  expect(after(rested, [at(60, 0.9, 500), at(322, 0, 500), at(400, 0, 92)])).toBe(rested)
  expect(after(rested, [at(323, 0, 93)])).toEqual(working)
})

test('[P7] a process with work to do is not asked, and no more as soon as work comes', () => {
  expect(after(working, [at(1, 0.09), at(5, 0.1), at(12, 0.09)])).toEqual({ state: 'working', quietSince: 12_000 })
  expect(after({ state: 'asking', until: 23_000 }, [at(14, 0.5)])).toEqual(working)
})

test('[P7] a process that has grown and become idle gives its memory back', async () => {
  const program = fileURLToPath(new URL('../../support/grown-process.ts', import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, [program])
  const { grown, rested } = JSON.parse(stdout)
  expect(rested).toBeLessThan(grown / 2)
}, 60_000)
