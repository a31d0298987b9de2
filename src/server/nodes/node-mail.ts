// How one node says something to another: types only.

export interface NodeMail {
  /** Random, another after each start. */
  readonly nodeId: string
  /** Called with what other nodes say to this one. Once; for good. @param heard may not throw */
  hear(heard: (text: string) => void): void
  /** Not repeated, and lost where that node does not hear at this moment.
   *  @returns how many heard it: 0 where there is no such node @throws UNAVAILABLE */
  tell(nodeId: string, text: string): Promise<number>
}
