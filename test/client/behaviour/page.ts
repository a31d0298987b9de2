// The script of a page with one client in it.
import { Watched, type WatchOptions } from './watched.ts'

Object.assign(globalThis, {
  tidegateOpen(options: WatchOptions): void {
    Object.assign(globalThis, { tidegate: new Watched(options) })
  },
})
