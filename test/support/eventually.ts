import { vi } from 'vitest'

/** Resolves when the assertion holds, however slow the machine. @throws what it threw last, after 20 seconds */
export const eventually = <T>(assertion: () => T | Promise<T>): Promise<T> => vi.waitFor(assertion, 20_000)
