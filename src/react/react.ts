'use client'
// React hooks over tidegate/client: live queries, changes, channels, presence and the connection's status as what a component shows.
// Every query and channel may be made in render; nothing is asked before the component is on the page, and on a server nothing at all.
//
//   const { rows, status } = useLive(tide.from('messages').where('room_id', '=', room).live())
//   const { send } = useChannel(tide.channel(`room:${room}`), { typing: ({ sender }) => show(sender) })

export { type ChangesResult, type UseChangesOptions, useChanges } from './use-changes.ts'
export { type ChannelListeners, type ChannelResult, type UseChannelOptions, useChannel } from './use-channel.ts'
export { type LiveResult, useLive } from './use-live.ts'
export { type PresenceResult, usePresence } from './use-presence.ts'
export { useStatus } from './use-status.ts'
