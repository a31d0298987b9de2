// Says of every prerequisite whether it holds, and what to run if it does not.
import type { Environment, Flags } from '../../server/config/config.ts'
import { diagnose } from '../../server/doctor/diagnose.ts'
import type { Finding } from '../../server/doctor/finding.ts'
import { diagnosisLines } from '../diagnosis-lines.ts'

export interface DoctorWishes {
  readonly env: Environment
  readonly flags: Flags
  /** The diagnosis as JSON, for programs. */
  readonly json: boolean
  /** Warnings fail too. */
  readonly strict: boolean
  /** Whether `print` leads to a terminal. */
  readonly isTerminal: boolean
}

/** 0: all is well, or there are warnings only; 1: something failed; 2: something could not be looked at, and nothing failed. */
export type DoctorExitCode = 0 | 1 | 2

/** @throws nothing that is wrong with what it looks at */
export async function doctor(wishes: DoctorWishes, print: (line: string) => void): Promise<DoctorExitCode> {
  const { env, flags, json, strict, isTerminal } = wishes
  const diagnosis = await diagnose({ env, flags })
  // https://no-color.org
  const isColored = isTerminal && !env.NO_COLOR
  print(json ? JSON.stringify(diagnosis, null, 2) : diagnosisLines(diagnosis, { isColored }).join('\n'))
  return exitCodeOf(diagnosis.findings, { strict })
}

export function exitCodeOf(
  findings: readonly Pick<Finding, 'verdict'>[],
  { strict }: Pick<DoctorWishes, 'strict'>,
): DoctorExitCode {
  const has = (verdict: Finding['verdict']): boolean => findings.some(finding => finding.verdict === verdict)
  if (has('failure') || (strict && has('warning'))) return 1
  return has('unknown') ? 2 : 0
}
