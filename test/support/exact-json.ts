// JSON whose numbers stay what they are in the text: 1.0 is not 1 there, and 9007199254740993 not the even number beside it.

/** As `JSON.parse`, but a number that would be printed otherwise again is kept as a raw one, which `JSON.stringify` prints as it came. */
export function parseExactly(text: string): unknown {
  return JSON.parse(text, function keep(this: unknown, _name: string, value: unknown, context?: { source?: string }) {
    const source = context?.source
    return typeof value !== 'number' || source === undefined || String(value) === source ? value : rawJson(source)
  } as (this: unknown, name: string, value: unknown) => unknown)
}

const { rawJSON: rawJson } = JSON as unknown as { rawJSON(text: string): unknown }
