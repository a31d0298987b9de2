// Where a client runs that a scenario drives: in this process, or in a page.
import { type Glance, type Seen, Watched, type WatchOptions } from './watched.ts'

export interface Driven extends AsyncDisposable {
  glance(): Promise<Glance>
  seen(): Promise<Seen>
}

export interface Driver extends AsyncDisposable {
  /** @param place whoever names the same shares a page, where there are pages; left out: one of its own */
  open(options: WatchOptions, place?: string): Promise<Driven>
}

/** In this process. */
export const nodeDriver: Driver = {
  async open(options) {
    const watched = new Watched(options)
    return {
      glance: async () => watched.glance,
      seen: async () => watched.seen,
      [Symbol.asyncDispose]: async () => watched.close(),
    }
  },
  [Symbol.asyncDispose]: async () => {},
}
