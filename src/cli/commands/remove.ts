// Takes Tidegate out of a database, or shows what it would run.
export { type RemoveOptions, remove } from '../../server/admin/remove.ts'
