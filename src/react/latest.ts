// A listener that is always the one of the last render, behind a reference that stays.
import { type RefObject, useInsertionEffect, useRef } from 'react'

export function useLatest<T>(value: T): RefObject<T> {
  const latest = useRef(value)
  // Before any other effect of the same commit can call it; and not in render, which may be thrown away.
  useInsertionEffect(() => {
    latest.current = value
  })
  return latest
}
