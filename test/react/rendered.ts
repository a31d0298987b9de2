// What a server renders and a browser takes over: every hook once.
import { createElement, type ReactElement } from 'react'
import { type Client, createClient } from '../../src/client/client.ts'
import { useChannel, useLive, usePresence, useStatus } from '../../src/react/react.ts'

export interface Database {
  rooms: { id: number; name: string }
  messages: { id: number; room_id: number; author: string | null; body: string }
}
export type Tide = Client<Database>

export const connectTo = (url: string, token: string): Tide => createClient<Database>(url, { token })

export function Rendered({ tide }: { tide: Tide }): ReactElement {
  const { rows, status } = useLive(tide.from('messages').where('room_id', '=', 1).orderBy('id').live())
  const { status: entered } = useChannel(tide.channel('room:1'), {})
  const { here, count } = usePresence(tide.channel('room:1'))
  return createElement(
    'section',
    {
      'data-status': status,
      'data-client': useStatus(tide).name,
      'data-channel': entered,
      'data-here': here.length + count,
    },
    rows.map(({ id, body }) => createElement('p', { key: id }, body)),
  )
}
