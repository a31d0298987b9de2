// Stops tracking tables, or shows what it would run.
export { type UntrackOptions, untrack } from '../../server/admin/untrack.ts'
