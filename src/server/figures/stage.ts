// The stages of a commit's way through a node, by which figures, timings and traces are labelled.

export const stages = ['wal', 'relay', 'decode', 'authorize', 'route', 'deliver'] as const

/** What is timed of each. Columns are decoded when somebody asks for them, so that most of the decoding lies in `authorize` and `route`.
 *  - `wal`: from the commit's time in Postgres until its last bytes were here; only where the slot is held
 *  - `relay`: from there until the commit was at hand to be served: into the journal and out of it, and behind the commits before it.
 *    Where the slot is not held it begins with the commit's time in Postgres
 *  - `decode`: its changes walked, and folded by row; only of a commit that somebody follows a table of, and that fits into memory
 *  - `authorize`: memberships moved and rows judged
 *  - `route`: outcomes grouped and encoded, once for all who get the same
 *  - `deliver`: handed to the queues of sockets; the first of a turn is written at once, the others at its end */
export type Stage = (typeof stages)[number]
