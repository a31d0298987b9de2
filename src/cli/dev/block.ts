// The one block that `tidegate dev` prints when it is ready: where to look, and what to type.

export interface Block {
  readonly title: string
  /** Short facts: `Page`, `http://...`. */
  readonly facts: readonly (readonly [name: string, value: string])[]
  /** Lines to try, whole, to be copied. */
  readonly commands: readonly (readonly [purpose: string, command: string])[]
  readonly end: string
}

/** @returns lines, with an empty one at either end */
export function renderBlock({ title, facts, commands, end }: Block): string {
  const width = Math.max(...facts.map(([name]) => name.length))
  const lines = ['', `  ${title}`, '', ...facts.map(([name, value]) => `  ${name.padEnd(width)}  ${value}`), '']
  for (const [purpose, command] of commands) lines.push(`  ${purpose}:`, `    ${command}`, '')
  lines.push(`  ${end}`, '')
  return lines.join('\n')
}

/** For a shell's command line. */
export const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`
