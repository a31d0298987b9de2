// Loaded into a node's process before it starts (`--import`, with `--expose-gc`): on SIGUSR2 it collects garbage and says on
// standard error what is left.
process.on('SIGUSR2', () => {
  globalThis.gc?.()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  process.stderr.write(`${JSON.stringify({ weighed: heapUsed + arrayBuffers })}\n`)
})
