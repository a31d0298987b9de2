// What the terminal shows when a command fails: code, message, remedy. The stack is for those who ask for it.
import { inspect } from 'node:util'
import { type PeerCode, peerCodes } from '../protocol/codes.ts'
import { type OperatorCode, operatorCodes } from '../protocol/operator-codes.ts'
import { TidegateError } from '../protocol/tidegate-error.ts'
import { visible } from './visible.ts'

/** @returns lines for standard error, without a line break at the end */
export function describeFailure(error: unknown, options: { readonly isVerbose: boolean }): string {
  const lines: string[] = []
  if (error instanceof TidegateError) {
    lines.push(`tidegate: ${error.code}`, ...indent(error.message))
    lines.push(...indent(`Remedy: ${remedyOf(error)}`))
  } else {
    lines.push(`tidegate: ${error instanceof Error ? error.message || error.name : String(error)}`)
  }
  if (options.isVerbose) lines.push(...indent(inspect(error)))
  else if (!(error instanceof TidegateError) || error.cause !== undefined) lines.push('  --verbose shows the cause.')
  return visible(lines.join('\n'))
}

function remedyOf({ code }: TidegateError): string {
  const entry = Object.hasOwn(operatorCodes, code) ? operatorCodes[code as OperatorCode] : peerCodes[code as PeerCode]
  return entry.remedy
}

const indent = (text: string): string[] => text.split('\n').map(line => `  ${line}`)
