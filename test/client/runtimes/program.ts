// What an application does with the client, in whichever runtime. Tells what it sees, a line each.
import { createClient, type TransportName } from '../../../src/client/client.ts'

interface Database {
  messages: { id: number; room_id: number; body: string }
}
interface Events {
  said: string
  end: null
}

/** As Node has it, and the others too. */
const [, , url = '', token = '', transport = '', number = ''] = process.argv

const tell = (what: string, value: unknown): void => console.log(JSON.stringify([what, value]))

const tide = createClient<Database>(url, {
  token,
  transports: [transport as TransportName],
  onError: error => tell('error', error.message),
})
tide.onStatus(({ name }) => tell('status', name))
const room = tide.channel<Events>(`room:${number}`)
room.on('said', ({ payload }) => tell('said', payload))
room.on('end', () => tide.close())
tide
  .from('messages')
  .where('room_id', '=', Number(number))
  .select(['id', 'body'])
  .live()
  .subscribe(({ rows, status }) => {
    if (status === 'live')
      tell(
        'rows',
        rows.map(({ body }) => body),
      )
  })
const sent = await room.send('said', `from ${transport}`)
tell('sent', typeof sent)
