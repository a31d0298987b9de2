// What the checked run is about: the tables, who may see what in them (once in SQL for Postgres, once in TypeScript for the
// checker, written apart), and the queries that readers ask.
import type { JsonRow } from '../../src/protocol/messages.ts'

export type TableName = 'rooms' | 'members' | 'bans' | 'messages' | 'notes'

export const schema = `
  CREATE TABLE public.rooms (id int PRIMARY KEY, name text NOT NULL);
  CREATE TABLE public.members (room_id int NOT NULL REFERENCES public.rooms ON DELETE CASCADE, user_id uuid NOT NULL,
    role text NOT NULL, PRIMARY KEY (room_id, user_id));
  CREATE TABLE public.bans (room_id int NOT NULL, user_id uuid NOT NULL, PRIMARY KEY (room_id, user_id));
  CREATE TABLE public.messages (id int PRIMARY KEY, room_id int REFERENCES public.rooms ON DELETE CASCADE,
    is_public boolean NOT NULL DEFAULT false, body text);
  CREATE TABLE public.notes (id int PRIMARY KEY, room_id int NOT NULL, author uuid NOT NULL, body text);
  ALTER TABLE public.notes ALTER body SET STORAGE EXTERNAL;
  ALTER TABLE public.rooms ENABLE ROW LEVEL SECURITY;
  ALTER TABLE public.members ENABLE ROW LEVEL SECURITY;
  ALTER TABLE public.bans ENABLE ROW LEVEL SECURITY;
  ALTER TABLE public.messages ENABLE ROW LEVEL SECURITY;
  ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON public.members FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
  CREATE POLICY own ON public.bans FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
  CREATE POLICY rooms ON public.rooms FOR SELECT TO authenticated USING (
    id IN (SELECT m.room_id FROM public.members m WHERE m.user_id = auth.uid()));
  CREATE POLICY readers ON public.messages FOR SELECT TO authenticated USING (
    is_public OR EXISTS (SELECT 1 FROM public.members m
      WHERE m.room_id = messages.room_id AND m.user_id = (SELECT auth.uid()) AND m.role IN ('reader', 'owner')));
  CREATE POLICY notes ON public.notes FOR SELECT TO authenticated USING (
    author = (SELECT auth.uid())
    OR room_id IN (SELECT m.room_id FROM public.members m WHERE m.user_id = auth.uid() AND m.role = 'owner'));
  CREATE POLICY not_banned ON public.notes AS RESTRICTIVE FOR SELECT TO authenticated USING (
    NOT EXISTS (SELECT 1 FROM public.bans b WHERE b.room_id = notes.room_id AND b.user_id = (SELECT auth.uid())));
  GRANT SELECT ON ALL TABLES IN SCHEMA public TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated;
`

export const primaryKeys: Readonly<Record<TableName, readonly string[]>> = {
  rooms: ['id'],
  members: ['room_id', 'user_id'],
  bans: ['room_id', 'user_id'],
  messages: ['id'],
  notes: ['id'],
}

export const tableNames = Object.keys(primaryKeys) as TableName[]

/** A row's name within its table. */
export const nameOf = (table: TableName, row: JsonRow): string =>
  JSON.stringify(primaryKeys[table].map(column => row[column]))

/** What stood under a primary key at the moment in question; null when nothing did. */
export type Lookup = (table: TableName, name: string) => JsonRow | null

interface Policy {
  /** Tables that decide besides the row's own. */
  readonly inputs: readonly TableName[]
  /** The rows of other tables that decide about this one. */
  decidedBy(row: JsonRow, user: string): readonly (readonly [TableName, string])[]
  allows(row: JsonRow, user: string, lookup: Lookup): boolean
}

const pair = (room: unknown, user: string): string => JSON.stringify([room, user])
const own: Policy = { inputs: [], decidedBy: () => [], allows: (row, user) => row.user_id === user }

/** Who may see a row: the policies above, in another language. */
export const policies: Readonly<Record<TableName, Policy>> = {
  members: own,
  bans: own,
  rooms: {
    inputs: ['members'],
    decidedBy: (row, user) => [['members', pair(row.id, user)]],
    allows: (row, user, lookup) => lookup('members', pair(row.id, user)) !== null,
  },
  messages: {
    inputs: ['members'],
    decidedBy: (row, user) => [['members', pair(row.room_id, user)]],
    allows: (row, user, lookup) => {
      if (row.is_public === true) return true
      const role = lookup('members', pair(row.room_id, user))?.role
      return role === 'reader' || role === 'owner'
    },
  },
  notes: {
    inputs: ['members', 'bans'],
    decidedBy: (row, user) => [
      ['members', pair(row.room_id, user)],
      ['bans', pair(row.room_id, user)],
    ],
    allows: (row, user, lookup) =>
      lookup('bans', pair(row.room_id, user)) === null &&
      (row.author === user || lookup('members', pair(row.room_id, user))?.role === 'owner'),
  },
}

export interface CheckedQuery {
  readonly table: TableName
  /** As in a URL. */
  readonly filter: string
  readonly select: readonly string[] | null
  /** For `changes`. */
  readonly events?: readonly string[]
  /** The filter for Postgres. */
  readonly where: string
  /** The filter for the checker. */
  matches(row: JsonRow): boolean
}

const all = (table: TableName, select: readonly string[] | null = null): CheckedQuery => ({
  table,
  filter: '',
  select,
  where: 'true',
  matches: () => true,
})

export const queries: readonly CheckedQuery[] = [
  all('messages'),
  all('messages'),
  all('notes'),
  all('notes'),
  all('members'),
  all('rooms'),
  all('rooms', ['id']),
  all('bans'),
  all('notes', ['room_id']),
  { table: 'messages', filter: 'room_id=eq.1', select: null, where: 'room_id = 1', matches: row => row.room_id === 1 },
  {
    table: 'messages',
    filter: 'body=like.a*',
    select: ['id', 'body'],
    where: `body LIKE 'a%'`,
    matches: row => typeof row.body === 'string' && row.body.startsWith('a'),
  },
  {
    table: 'messages',
    filter: 'or=(room_id.in.(2,3),is_public.is.true)',
    select: null,
    where: 'room_id IN (2, 3) OR is_public',
    matches: row => row.room_id === 2 || row.room_id === 3 || row.is_public === true,
  },
  {
    table: 'messages',
    filter: 'id=lt.40&room_id=not.is.null',
    select: ['room_id'],
    events: ['insert', 'delete'],
    where: 'id < 40 AND room_id IS NOT NULL',
    matches: row => (row.id as number) < 40 && row.room_id !== null,
  },
  {
    table: 'notes',
    filter: 'id=gte.10',
    select: ['id', 'author'],
    where: 'id >= 10',
    matches: row => (row.id as number) >= 10,
  },
  {
    table: 'members',
    filter: 'role=eq.owner',
    select: null,
    where: `role = 'owner'`,
    matches: row => row.role === 'owner',
  },
]

/** The columns that a reader of this query gets. */
export function project(query: CheckedQuery, row: JsonRow): JsonRow {
  if (query.select === null) return row
  const columns = new Set([...primaryKeys[query.table], ...query.select])
  return Object.fromEntries(Object.entries(row).filter(([column]) => columns.has(column)))
}
