// A service that has no public channels.
import { randomUUID } from 'node:crypto'
import { expect } from 'vitest'
import type { Scenario } from '../world.ts'

export const privateOnly: readonly Scenario[] = [
  {
    name: 'private channels only',
    tables: () => 'CREATE TABLE todos (id int PRIMARY KEY); GRANT SELECT ON todos TO anon, authenticated',
    tracked: ['todos'],
    async play(scene) {
      const topic = scene.topic()
      const sub = randomUUID()
      await scene.seat(sub, topic, 'hear', 'speak')
      const client = await scene.client({ sub })
      const shut = await client.join(scene.topic('public'), { broadcast: ['*'] })
      await shut.status('CHANNEL_ERROR')
      expect(shut.of('status')[0]?.[1]).toContain('PrivateOnly: This project only allows private channels')
      expect(await shut.httpSend('denied', {})).toEqual({ rejected: expect.stringMatching(/./) })
      const room = await client.enter(topic, {
        broadcast: ['*'],
        config: { private: true, broadcast: { self: true } },
        changes: [{ event: '*', schema: scene.schema, table: 'todos' }],
      })
      await room.send('end', {})
      await room.event('end')
      await scene.query('INSERT INTO todos VALUES (1)')
      await room.change(1)
      expect([shut.broadcasts, shut.statuses.includes('SUBSCRIBED')]).toEqual([[], false])
    },
  },
]
