// Everything that Supabase Realtime does, as of August 2026, and the scenarios that show it with its own clients.
import { expect, test } from 'vitest'
import { privateOnly } from './scenarios/private-only.ts'
import { scenarios } from './suite.ts'
import { cells } from './world.ts'

/** Names of scenarios, or why there is none: what no client has. */
type Shown = readonly string[] | { readonly none: string }

const postgresChanges: Readonly<Record<string, Shown>> = {
  'INSERT, UPDATE, DELETE, *': ['insert update delete'],
  TRUNCATE: ['truncated table'],
  'schema and table, each may be *': ['schemas and tables by wildcard'],
  'a table alone is of public': ['schemas and tables by wildcard'],
  'filters: eq neq lt lte gt gte in like ilike is match imatch isdistinct': ['every filter'],
  'filters negated by not.': ['every filter'],
  'a hundred values in in, and no more': ['every filter', 'bindings that cannot work'],
  'regular expressions are checked when they are subscribed': [
    'bindings that cannot work',
    'regular expressions that Postgres alone knows',
  ],
  'AND of several, values in quotes': ['every filter'],
  'column selection': ['selected columns', 'bindings that cannot work'],
  'filter builder': ['filters that are built'],
  'old_record by replica identity': ['old record by replica identity'],
  'row level security': ['row level security at each commit', 'membership that ends and begins'],
  'row level security of deletes': ['row level security at each commit'],
  'column privileges': ['column privileges'],
  'errors: no primary key, unauthorized': ['bindings that cannot work', 'row level security at each commit'],
  'errors: payload too large': ['one row beyond a megabyte'],
  ordering: ['order of commits'],
  'values of each type': ['values of every type'],
  'initial data': { none: 'there is no call for it; it is an open request of theirs' },
  'views, joins, materialized views': ['bindings that cannot work'],
  'readiness: the system message, postgres_changes_options.wait': ['subscribed means that changes flow'],
  'rows that enter and leave a filter': ['rows that enter and leave a filter'],
}

const broadcast: Readonly<Record<string, Shown>> = {
  'client to clients, JSON': ['broadcast to the others', 'names of other letters'],
  'client to clients, binary': ['broadcast of bytes'],
  self: ['broadcast to oneself too', 'broadcast to the others'],
  ack: ['broadcast that is acknowledged'],
  'no ack': ['broadcast to the others'],
  'REST batch': ['broadcast over HTTP', 'broadcast over HTTP to a private channel'],
  'REST single, JSON and octet-stream': ['broadcast over HTTP', 'broadcast over HTTP to a private channel'],
  'realtime.send, send_binary, broadcast_changes': ['broadcast from the database'],
  replay: ['broadcasts of before', 'replay of a public channel'],
  replication_ready: ['replication that is ready'],
  'message ids': ['broadcast to the others', 'broadcast from the database', 'broadcast to oneself too'],
  'history of what clients said': ['broadcasts of before', 'messages that are kept', 'broadcasts missed while away'],
}

const presence: Readonly<Record<string, Shown>> = {
  'track, untrack, sync, join, leave, presenceState': ['track and untrack', 'presence over a break'],
  'several metas under one key': ['several under one key'],
  'presence.key': ['track and untrack', 'private presence', 'a key that the server makes'],
  'presence.enabled': ['presence that is not watched'],
  'track twice': ['track twice'],
  'unchanged payload': ['track twice'],
  'policies of presence': ['private presence'],
  'delta period of a cluster': { none: 'a setting of their server; no client knows of it' },
}

const connection: Readonly<Record<string, Shown>> = {
  'public channels': ['broadcast to the others', 'public and private of one name'],
  'private channels': ['private channel refused and granted', 'public and private of one name'],
  'private channels: SELECT and INSERT, by extension': [
    'private presence',
    'broadcast that is acknowledged',
    'right to speak revoked and granted again',
  ],
  'private only mode': ['private channels only'],
  'policy caching': ['private channel revoked and granted again', 'right to speak revoked and granted again'],
  'token refresh': ['token renewed by accessToken', 'token given by setAuth'],
  'reconnects, tokens and revocations in between': ['breaks, renewals and revocations in between'],
  'token expiry': ['token that expires'],
  'JWT algorithms': { none: 'a client passes a token on as it is' },
  'publishable and secret keys': ['publishable key', 'a key that is none'],
  heartbeat: ['heartbeats', 'a socket that dies silently'],
  'transport: WebSocket': ['heartbeats', 'a socket that dies silently'],
  'transport: long-poll': { none: 'RealtimeClient takes no other transport than a WebSocket' },
  'worker heartbeat': ['heartbeats of a worker'],
  reconnect: ['changes missed while away', 'broadcasts missed while away', 'presence over a break'],
  'send buffer': ['pushes before the join'],
  'channels per connection': ['a hundred channels'],
  'leave, join again, subscribe twice': ['leave and join again', 'subscribe twice'],
}

const features = { ...postgresChanges, ...broadcast, ...presence, ...connection }
const all = [...scenarios, ...privateOnly]
const names = all.map(({ name }) => name)

test.each(Object.entries(features))('%s', (_, shown) => {
  if ('none' in shown) expect(shown.none.length).toBeGreaterThan(20)
  else {
    expect(shown.length).toBeGreaterThan(0)
    expect(names).toEqual(expect.arrayContaining([...shown]))
  }
})

test('every scenario shows something, under a name of its own', () => {
  const shown = Object.values(features).flatMap(each => ('none' in each ? [] : each))
  expect(names.filter(name => !shown.includes(name))).toEqual([])
  expect(names).toEqual([...new Set(names)])
})

test('every scenario is played by some client, and by all but those that cannot', () => {
  for (const scenario of all) {
    const everywhere = cells.flatMap(cell => (['Node', 'Chromium'] as const).map(runtime => ({ ...cell, runtime })))
    const out = everywhere.map(each => scenario.not?.(each) ?? null)
    expect(out.filter(each => each === null).length, scenario.name).toBeGreaterThan(0)
    for (const reason of out) if (reason !== null) expect(reason.length).toBeGreaterThan(10)
  }
})
