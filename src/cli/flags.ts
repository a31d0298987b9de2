// Gives a command its flags from the table of options, so that the help says what the documentation says.
import { type Command, Option as Flag } from 'commander'
import { flagOf, type Option, type OptionName, options } from '../server/config/config.ts'

/** Adds a flag for each option; its text goes unparsed to `loadOptions`, which also reads the environment. */
export function addFlags(command: Command, names: readonly OptionName[]): Command {
  for (const name of names) command.addOption(new Flag(`${flagOf(name)} <value>`, describe(name)))
  return command
}

function describe(name: OptionName): string {
  const option: Option<unknown> = options[name]
  const unset = option.isRequired ? 'required' : option.default ? `default ${option.default}` : 'default none'
  return `${option.help} Takes ${option.type}. [${name}, ${unset}]`
}
