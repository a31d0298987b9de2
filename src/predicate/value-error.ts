// A value does not fit a type, or Postgres would raise on it: judging this row, or binding these claims, fails.

/** Thrown while evaluating; whoever catches it answers "not visible". The message names the type and never the value:
 *  it may end in a log, or in front of somebody who must not read the row. */
export class ValueError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'ValueError'
  }
}
