// A clock for durations: the wall clock may be set while the process runs, and an hour added to it must not empty a window,
// nor an hour taken from it hide that nothing has come for an hour.

/** Milliseconds since 1970 as the wall clock had it when the process began, and from there on steadily; whole. */
export const steadyNow = (): number => Math.floor(performance.timeOrigin + performance.now())
