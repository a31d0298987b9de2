// Text that others chose, such as the name of a table, on its way to a terminal: what would steer the terminal is shown instead.

/** C0, DEL and C1 without line breaks; line separators; what turns the direction of writing. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: those are what is looked for.
const steering = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g

/** `\u{1b}` for ESC. Line breaks stay. */
export const visible = (text: string): string =>
  text.replace(steering, character => `\\u{${character.codePointAt(0)!.toString(16)}}`)

/** The same on one line: a name with a line break cannot pass for a line of ours. */
export const visibleLine = (text: string): string => visible(text).replaceAll('\n', '\\n')
