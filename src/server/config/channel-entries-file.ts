// What is said of channels may stand in a file of its own, beside the application's.
import { readFileSync } from 'node:fs'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { type ChannelEntry, parseChannelEntries } from './channel-entries.ts'

interface Given {
  readonly channels: readonly ChannelEntry[]
  readonly channelsFile: string | null
}

/** The entries that hold: those of CHANNELS, or of the file, never of both.
 *  @param nameOf the option as it was given: CHANNELS_FILE or --channels-file
 *  @throws CONFIG_INVALID that names entry and field, a line for each that does not fit */
export function readChannelEntries(
  { channels, channelsFile }: Given,
  nameOf: (name: 'CHANNELS' | 'CHANNELS_FILE') => string,
): readonly ChannelEntry[] {
  if (channelsFile === null) return channels
  const name = `${nameOf('CHANNELS_FILE')} (${channelsFile})`
  if (channels.length > 0) throw invalid([`${nameOf('CHANNELS')} and ${name} are both set; set one of them`])
  const parsed = parseChannelEntries(textOf(channelsFile, name))
  if (parsed.refusals !== undefined) throw invalid(parsed.refusals.map(refusal => `${name}: ${refusal}`))
  return parsed.entries
}

function textOf(path: string, name: string): string {
  try {
    // Editors on Windows begin a file with U+FEFF, which is no JSON.
    return readFileSync(path, 'utf8').replace(/^\ufeff/, '')
  } catch (error) {
    throw new TidegateError('CONFIG_INVALID', `${name} cannot be read: ${(error as Error).message}`, { cause: error })
  }
}

const invalid = (refusals: readonly string[]): TidegateError => new TidegateError('CONFIG_INVALID', refusals.join('\n'))
