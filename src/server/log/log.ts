// Structured logs on standard error. Tokens and row values never go in.
import { pino } from 'pino'
import { errorForLog } from './log-error.ts'

export type Log = Pick<pino.Logger, 'debug' | 'info' | 'warn' | 'error'>

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent'

export const createLog = (level: LogLevel): Log =>
  pino({ name: 'tidegate', level, serializers: { err: errorForLog } }, pino.destination(2))
