// Tracks tables, or prints what it would run.
export { type TrackOptions, track } from '../../server/admin/track.ts'
