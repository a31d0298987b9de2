// The script of a page with clients in it, each by its number.
import { Watched, type WatchOptions } from './watched.ts'

const clients: Watched[] = []

Object.assign(globalThis, {
  clients,
  tidegateOpen: (options: WatchOptions): number => clients.push(new Watched(options)) - 1,
})
