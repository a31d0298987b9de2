// How a node can know that it alone is cut off, though it asks nobody but Postgres. Pure: time comes as an argument.
//
//   - Postgres says that the slot is acknowledged past what has come here, and nothing comes. The node that holds the slot
//     acknowledges only what the journal stored, so the others get it.
//   - Commits keep coming, but Postgres does not answer this node. Somebody reads them from Postgres.
//
// A node that hears nothing at all cannot tell whether the others do: it does not call itself alone.

export interface IsolationState {
  /** How long the slot has been acknowledged past what came here, without anything coming; null: it is not. */
  readonly overtakenForMs: number | null
  /** How long Postgres has not answered; null: it does. */
  readonly unansweredForMs: number | null
  /** How long ago something came through the stream. */
  readonly movedAgoMs: number
}

export class Isolation {
  #feedLsn = 0n
  #movedAtMs: number
  #overtakenSinceMs: number | null = null
  #unansweredSinceMs: number | null = null

  constructor(nowMs: number) {
    this.#movedAtMs = nowMs
  }

  /** @param feedLsn how far the stream has come to this node, served or not */
  looked(feedLsn: bigint, nowMs: number): void {
    if (feedLsn === this.#feedLsn) return
    this.#feedLsn = feedLsn
    this.#movedAtMs = nowMs
    this.#overtakenSinceMs = null
  }

  /** Postgres is about to be asked. */
  asked(nowMs: number): void {
    this.#unansweredSinceMs ??= nowMs
  }

  /** @param confirmedLsn how far the slot is acknowledged; null when there is none */
  answered(confirmedLsn: bigint | null, nowMs: number): void {
    this.#unansweredSinceMs = null
    // A window that begins anew stands right before the slot's position until something comes.
    if (confirmedLsn !== null && confirmedLsn > this.#feedLsn + 1n) this.#overtakenSinceMs ??= nowMs
    else this.#overtakenSinceMs = null
  }

  at(nowMs: number): IsolationState {
    const since = (momentMs: number | null): number | null => (momentMs === null ? null : nowMs - momentMs)
    return {
      overtakenForMs: since(this.#overtakenSinceMs),
      unansweredForMs: since(this.#unansweredSinceMs),
      movedAgoMs: nowMs - this.#movedAtMs,
    }
  }
}
