// Presence: who is here, under which key, and who may see it.
import { randomUUID } from 'node:crypto'
import { expect } from 'vitest'
import type { Room } from '../client.ts'
import type { JoinOptions, JsonObject } from '../performer.ts'
import type { Scenario } from '../world.ts'

const watching: JoinOptions = { presence: ['sync', 'join', 'leave'] }
const keyed = (key: string): JoinOptions => ({ ...watching, config: { presence: { key } } })

export const presences: readonly Scenario[] = [
  {
    name: 'track and untrack',
    async play(scene) {
      const topic = scene.topic()
      const ann = await (await scene.client()).enter(topic, keyed('ann'))
      await ann.until('the first state', () => ann.of('sync').length > 0)
      expect(ann.present).toEqual({})
      expect(await ann.track({ mood: 'glad' })).toBe('ok')
      await ann.presence({ ann: [{ mood: 'glad' }] })
      const bob = await (await scene.client()).enter(topic, keyed('bob'))
      await bob.presence({ ann: [{ mood: 'glad' }] })
      expect(await bob.track({ mood: 'sad' })).toBe('ok')
      const both = { ann: [{ mood: 'glad' }], bob: [{ mood: 'sad' }] }
      await ann.presence(both)
      await bob.presence(both)
      expect(Object.keys((await ann.presenceState()) as object).sort()).toEqual(['ann', 'bob'])
      expect(await bob.untrack()).toBe('ok')
      await ann.presence({ ann: [{ mood: 'glad' }] })
      await bob.presence({ ann: [{ mood: 'glad' }] })
      const meta = (mood: string) => ({ mood, presence_ref: expect.any(String) })
      expect(ann.of('join')).toEqual([
        [{ event: 'join', key: 'ann', currentPresences: [], newPresences: [meta('glad')] }],
        [{ event: 'join', key: 'bob', currentPresences: [], newPresences: [meta('sad')] }],
      ])
      expect(ann.of('leave')).toEqual([
        [{ event: 'leave', key: 'bob', currentPresences: [], leftPresences: [meta('sad')] }],
      ])
      expect(bob.of('join')).toEqual([
        [{ event: 'join', key: 'ann', currentPresences: [], newPresences: [meta('glad')] }],
        [{ event: 'join', key: 'bob', currentPresences: [], newPresences: [meta('sad')] }],
      ])
    },
  },
  {
    name: 'several under one key',
    async play(scene) {
      const topic = scene.topic()
      const watcher = await (await scene.client()).enter(topic, watching)
      const clients = [await scene.client(), await scene.client()]
      const rooms = []
      for (const [index, client] of clients.entries()) {
        const room = await client.enter(topic, keyed('ann'))
        await room.track({ device: index })
        rooms.push(room)
      }
      await watcher.presence({ ann: [{ device: 0 }, { device: 1 }] })
      await rooms[0]!.remove()
      await watcher.presence({ ann: [{ device: 1 }] })
      expect(watcher.of('leave').map(([leave]) => (leave as { leftPresences: JsonObject[] }).leftPresences)).toEqual([
        [{ device: 0, presence_ref: expect.any(String) }],
      ])
      await clients[1]!.runtime.ask('disconnect', clients[1]!.name)
      await watcher.presence({})
    },
  },
  {
    name: 'track twice',
    async play(scene) {
      const topic = scene.topic()
      const watcher = await (await scene.client()).enter(topic, watching)
      const room = await (await scene.client()).enter(topic, keyed('ann'))
      await room.track({ at: 1 })
      await watcher.presence({ ann: [{ at: 1 }] })
      await room.track({ at: 2, more: true })
      await watcher.presence({ ann: [{ at: 2, more: true }] })
      // The same again changes nothing: what comes next is the next thing told.
      await room.track({ at: 2, more: true })
      await room.track({ at: 3 })
      await watcher.presence({ ann: [{ at: 3 }] })
      await room.presence({ ann: [{ at: 3 }] })
      for (const each of [watcher, room]) {
        expect(each.of('join').map(([join]) => (join as { newPresences: JsonObject[] }).newPresences)).toEqual([
          [{ at: 1, presence_ref: expect.any(String) }],
          [{ at: 2, more: true, presence_ref: expect.any(String) }],
          [{ at: 3, presence_ref: expect.any(String) }],
        ])
        expect(each.of('leave')).toEqual([])
      }
    },
  },
  {
    name: 'a key that the server makes',
    async play(scene) {
      const topic = scene.topic()
      const rooms: Room[] = []
      for (let i = 0; i < 2; i++) {
        const room = await (await scene.client()).enter(topic, watching)
        await room.track({ i })
        rooms.push(room)
      }
      await rooms[0]!.until('both', () => Object.keys(rooms[0]!.present).length === 2)
      expect(new Set(Object.values(rooms[0]!.present).flat())).toEqual(new Set([{ i: 0 }, { i: 1 }]))
      for (const key of Object.keys(rooms[0]!.present)) expect(key.length).toBeGreaterThan(8)
    },
  },
  {
    name: 'presence that is not watched',
    async play(scene) {
      const topic = scene.topic()
      const watcher = await (await scene.client()).enter(topic, watching)
      const silent = await (await scene.client()).enter(topic, { config: { presence: { key: 'silent' } } })
      const enabled = await (await scene.client()).enter(topic, {
        config: { presence: { key: 'enabled', enabled: true } },
        broadcast: ['*'],
      })
      // Who does not watch can be seen.
      expect(await silent.track({ n: 1 })).toBe('ok')
      expect(await enabled.track({ n: 2 })).toBe('ok')
      await watcher.presence({ silent: [{ n: 1 }], enabled: [{ n: 2 }] })
      await watcher.send('marker', {})
      await enabled.event('marker')
      expect(Object.keys((await enabled.presenceState()) as object).sort()).toEqual(['enabled', 'silent'])
    },
  },
  {
    name: 'private presence',
    async play(scene) {
      const topic = scene.topic()
      const [ann, bob, cyd] = [randomUUID(), randomUUID(), randomUUID()]
      await scene.seat(ann, topic, 'hear', 'see', 'show', 'speak')
      await scene.seat(bob, topic, 'hear', 'speak')
      await scene.seat(cyd, topic, 'see')
      const join = (key: string): JoinOptions => ({
        ...watching,
        broadcast: ['*'],
        config: { private: true, presence: { key } },
      })
      const a = await (await scene.client({ sub: ann })).enter(topic, join(ann))
      const b = await (await scene.client({ sub: bob })).enter(topic, join(bob))
      const c = await (await scene.client({ sub: cyd })).enter(topic, join(''))
      expect(await a.track({ n: 1 })).toBe('ok')
      await a.presence({ [ann]: [{ n: 1 }] })
      await c.presence({ [ann]: [{ n: 1 }] })
      // Neither shows nor sees.
      expect(await b.track({ n: 2 })).toBe('error')
      await a.send('marker', {})
      await b.event('marker')
      expect(Object.keys(b.present)).toEqual([])
      expect(b.of('join')).toEqual([])
      // Sees, and hears nothing: the leave came after the broadcast.
      await a.untrack()
      await c.presence({})
      expect(c.broadcasts).toEqual([])
      expect(a.present).toEqual({})
    },
  },
  {
    name: 'presence over a break',
    async play(scene) {
      const topic = scene.topic()
      const proxy = await scene.proxy()
      const watcher = await (await scene.client({ url: proxy.url })).enter(topic, watching)
      const [stays, goes, changes] = await Promise.all(
        ['stays', 'goes', 'changes'].map(async key => (await scene.client()).enter(topic, keyed(key))),
      )
      for (const room of [stays!, goes!, changes!]) await room.track({ n: 1 })
      await watcher.presence({ stays: [{ n: 1 }], goes: [{ n: 1 }], changes: [{ n: 1 }] })
      proxy.link.isRefusing = true
      proxy.link.cut()
      await watcher.status('CHANNEL_ERROR')
      await goes!.untrack()
      await changes!.track({ n: 2 })
      const late = await (await scene.client()).enter(topic, keyed('late'))
      await late.track({ n: 1 })
      proxy.link.isRefusing = false
      await watcher.subscribed(2)
      await watcher.presence({ stays: [{ n: 1 }], changes: [{ n: 2 }], late: [{ n: 1 }] })
    },
  },
]
