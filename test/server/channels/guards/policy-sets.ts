// Policies on realtime.messages as applications write them, each set by itself, over rooms, members, organisations and bans.

export const people = {
  ada: '00000000-0000-4000-8000-00000000000a',
  bob: '00000000-0000-4000-8000-00000000000b',
  cid: '00000000-0000-4000-8000-00000000000c',
}

export const membershipTables = [
  'public.rooms',
  'public.room_members',
  'public.org_members',
  'public.bans',
  'public.profiles',
]

/** Ada owns room 1 and is in organisation 7; Bob is a muted member of rooms 1 and 2, banned from room:2; Cid is in nothing, but an
 *  administrator. */
export const schema = `
  CREATE TABLE rooms (id bigint PRIMARY KEY, topic text UNIQUE, is_open boolean, org_id int, closes_at timestamptz);
  CREATE TABLE room_members (room_id bigint, user_id uuid, topic text, role text, muted boolean, expires_at timestamptz,
    PRIMARY KEY (room_id, user_id));
  CREATE TABLE org_members (org_id int, user_id uuid, PRIMARY KEY (org_id, user_id));
  CREATE TABLE bans (id int PRIMARY KEY, topic text, user_id uuid);
  CREATE TABLE profiles (id uuid PRIMARY KEY, is_admin boolean, tier text);
  INSERT INTO rooms VALUES (1, 'room:1', false, 7, 'infinity'), (2, 'room:2', true, 8, '2001-01-01'), (3, 'lobby', true, NULL, NULL);
  INSERT INTO room_members VALUES (1, '${people.ada}', 'room:1', 'owner', false, 'infinity'),
    (1, '${people.bob}', 'room:1', 'member', true, '2001-01-01'), (2, '${people.bob}', 'room:2', 'member', NULL, NULL);
  INSERT INTO org_members VALUES (7, '${people.ada}'), (8, '${people.bob}');
  INSERT INTO bans VALUES (1, 'room:2', '${people.bob}'), (2, NULL, '${people.ada}');
  INSERT INTO profiles VALUES ('${people.ada}', false, 'pro'), ('${people.bob}', false, 'free'), ('${people.cid}', true, NULL);
  GRANT SELECT ON rooms, room_members, org_members, bans, profiles TO authenticated, anon;
  CREATE FUNCTION is_member(room bigint) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT EXISTS (SELECT 1 FROM public.room_members m WHERE m.room_id = room AND m.user_id = auth.uid()) $$;
  CREATE FUNCTION my_topics() RETURNS SETOF text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT 'room:' || m.room_id FROM public.room_members m WHERE m.user_id = auth.uid() $$;
  CREATE FUNCTION by_plpgsql(topic text) RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = '' AS $$
    BEGIN RETURN EXISTS (SELECT 1 FROM public.room_members m WHERE m.topic = by_plpgsql.topic AND m.user_id = auth.uid()); END $$;
  CREATE FUNCTION of_row(message realtime.messages) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
    BEGIN RETURN message.extension = 'broadcast' AND message.topic LIKE 'room:%'; END $$;
`

export interface PolicySet {
  readonly name: string
  /** \`M\` stands for realtime.messages. */
  readonly sql: string
  /** Postgres is asked for one of its actions at least. */
  readonly asked?: true
}

const on = (command: string, expression: string, to = 'authenticated'): string =>
  command === 'INSERT'
    ? `CREATE POLICY "${command} ${to}" ON M FOR INSERT TO ${to} WITH CHECK (${expression});`
    : `CREATE POLICY "${command} ${to}" ON M FOR ${command} TO ${to} USING (${expression});`

const both = (expression: string): string => on('SELECT', expression) + on('INSERT', expression)

export const policySets: readonly PolicySet[] = [
  { name: 'none', sql: '' },
  { name: 'everybody who is signed in', sql: both('true') },
  { name: 'receive only', sql: on('SELECT', 'true') },
  { name: 'send only', sql: on('INSERT', 'true') },
  { name: 'one topic', sql: both(`(SELECT realtime.topic()) = 'room:1'`) },
  { name: 'the column topic', sql: both(`topic = 'room:1' OR messages.topic = 'lobby'`) },
  {
    name: 'members by topic, as documented',
    sql: both(`EXISTS (SELECT user_id FROM room_members WHERE user_id = (SELECT auth.uid())
      AND topic = (SELECT realtime.topic()) AND realtime.messages.extension IN ('broadcast'))`),
  },
  {
    name: 'members for both extensions, as documented',
    sql: both(`EXISTS (SELECT user_id FROM room_members rm WHERE rm.user_id = (SELECT auth.uid())
      AND rm.topic = (SELECT realtime.topic()) AND realtime.messages.extension IN ('broadcast', 'presence'))`),
  },
  { name: 'presence only', sql: both(`realtime.messages.extension = 'presence'`) },
  {
    name: 'receive broadcasts, send presence',
    sql: on('SELECT', `extension = 'broadcast'`) + on('INSERT', `extension = 'presence' AND private`),
  },
  { name: 'a pattern of topics', sql: both(`realtime.topic() LIKE 'room:%' AND topic NOT LIKE '%:2'`) },
  {
    name: 'a room by ||',
    sql: both(
      `EXISTS (SELECT 1 FROM room_members m WHERE m.user_id = auth.uid() AND 'room:' || m.room_id = realtime.topic())`,
    ),
  },
  {
    name: 'a room by split_part, as text',
    sql: both(`EXISTS (SELECT 1 FROM room_members m WHERE m.room_id::text = split_part(realtime.topic(), ':', 2)
      AND m.user_id = auth.uid())`),
  },
  {
    name: 'a room by split_part and a cast that may raise',
    sql: both(
      `split_part(realtime.topic(), ':', 2)::bigint IN (SELECT m.room_id FROM room_members m WHERE m.user_id = auth.uid())`,
    ),
  },
  {
    name: 'a cast behind a pattern',
    sql: both(`CASE WHEN topic LIKE 'room:_' THEN is_member(substring(topic FROM 6)::bigint) ELSE false END`),
  },
  { name: 'a helper of a definer', sql: both(`is_member(nullif(split_part(topic, ':', 2), 'abc')::bigint)`) },
  { name: 'a set of a definer', sql: both(`realtime.topic() IN (SELECT my_topics())`) },
  { name: 'one’s own topic', sql: both(`realtime.topic() = 'user:' || (SELECT auth.uid())::text`) },
  {
    name: 'one’s own topic, by a cast',
    sql: both(`topic LIKE 'user:%' AND nullif(split_part(topic, ':', 2), '')::uuid = auth.uid()`),
  },
  { name: 'claims: a list of rooms', sql: both(`(auth.jwt() -> 'app_metadata' -> 'rooms') ? realtime.topic()`) },
  {
    name: 'claims: a list of rooms, as elements',
    sql: both(`split_part(topic, ':', 2) IN (SELECT jsonb_array_elements_text(auth.jwt() #> '{app_metadata,ids}'))`),
  },
  {
    name: 'claims: topics made of elements',
    sql: both(`topic IN (SELECT 'room:' || jsonb_array_elements_text(auth.jwt() #> '{app_metadata,ids}'))`),
    asked: true,
  },
  { name: 'claims: a role', sql: both(`(auth.jwt() -> 'app_metadata' ->> 'role') = 'staff' OR topic = 'lobby'`) },
  {
    name: 'receive as a member, send as an owner',
    sql:
      on('SELECT', `EXISTS (SELECT FROM room_members m WHERE m.topic = messages.topic AND m.user_id = auth.uid())`) +
      on(
        'INSERT',
        `EXISTS (SELECT FROM room_members m WHERE m.topic = messages.topic AND m.user_id = auth.uid() AND m.role = 'owner')`,
      ),
  },
  {
    name: 'members who are not muted may send',
    sql:
      on('SELECT', 'is_member(1)') +
      on(
        'INSERT',
        `EXISTS (SELECT FROM room_members m WHERE m.topic = realtime.topic() AND m.user_id = auth.uid() AND m.muted IS NOT TRUE)`,
      ),
  },
  {
    name: 'bans, restrictive',
    sql: `${both('true')} CREATE POLICY banned ON M AS RESTRICTIVE TO authenticated USING (
      NOT EXISTS (SELECT FROM bans b WHERE b.topic = realtime.topic() AND b.user_id = (SELECT auth.uid())));`,
  },
  {
    name: 'bans by NOT IN, with a NULL among them',
    sql: both(`realtime.topic() NOT IN (SELECT b.topic FROM bans b WHERE b.user_id = auth.uid())`),
  },
  {
    name: 'memberships that end',
    sql: both(`EXISTS (SELECT FROM room_members m WHERE m.topic = realtime.topic() AND m.user_id = auth.uid()
      AND (m.expires_at IS NULL OR m.expires_at > now()))`),
  },
  {
    name: 'rooms of one’s organisation',
    sql: both(`EXISTS (SELECT FROM rooms r JOIN org_members o ON o.org_id = r.org_id
      WHERE r.topic = realtime.topic() AND o.user_id = auth.uid())`),
  },
  {
    name: 'rooms of one’s organisation, by subqueries',
    sql: both(`realtime.topic() IN (SELECT r.topic FROM rooms r WHERE r.org_id IN (
      SELECT o.org_id FROM org_members o WHERE o.user_id = auth.uid()))`),
  },
  {
    name: 'open rooms, or members',
    sql: both(`EXISTS (SELECT FROM rooms r WHERE r.topic = realtime.topic() AND (r.is_open OR EXISTS (
      SELECT FROM room_members m WHERE m.room_id = r.id AND m.user_id = auth.uid())))`),
  },
  {
    name: 'rooms until they close',
    sql: both(`EXISTS (SELECT FROM rooms r WHERE r.topic = realtime.topic() AND r.closes_at > now())`),
  },
  {
    name: 'administrators everywhere',
    sql: both(`(SELECT p.is_admin FROM profiles p WHERE p.id = auth.uid()) OR is_member(1)`),
  },
  {
    name: 'only who pays sends',
    sql:
      on('SELECT', 'true') + on('INSERT', `(SELECT p.tier FROM profiles p WHERE p.id = auth.uid()) IN ('pro', 'team')`),
  },
  {
    name: 'guests receive in open rooms',
    sql: on('SELECT', `topic IN (SELECT r.topic FROM rooms r WHERE r.is_open)`, 'anon'),
  },
  { name: 'to everybody', sql: on('ALL', `topic = 'lobby' AND auth.role() IN ('anon', 'authenticated')`, 'PUBLIC') },
  {
    name: 'FOR ALL with another WITH CHECK',
    sql: `CREATE POLICY everything ON M TO authenticated USING (extension = 'broadcast') WITH CHECK (topic = 'room:1');`,
  },
  {
    name: 'several permissive ones',
    sql: `${on('SELECT', `topic = 'lobby'`)}${on('ALL', `topic LIKE 'room:%' AND is_member(substr(topic, 6, 1)::bigint)`)}`,
  },
  {
    name: 'a second factor, restrictive',
    sql: `${both('true')} CREATE POLICY aal ON M AS RESTRICTIVE FOR INSERT WITH CHECK ((SELECT auth.jwt() ->> 'aal') = 'aal2');`,
  },
  { name: 'starts_with and strpos', sql: both(`starts_with(topic, 'org:') OR strpos(realtime.topic(), 'lob') = 1`) },
  {
    name: 'the parts of a topic',
    sql: both(
      `(string_to_array(topic, ':'))[1] = 'org' AND (string_to_array(topic, ':'))[2]::int IN (SELECT o.org_id FROM org_members o WHERE o.user_id = auth.uid())`,
    ),
  },
  {
    name: 'a room by || over the column',
    sql: both(
      `EXISTS (SELECT 1 FROM room_members m WHERE m.user_id = auth.uid() AND 'room:' || m.room_id = messages.topic)`,
    ),
  },
  {
    name: 'a room by the number in the column, whatever is behind it',
    sql: both(`EXISTS (SELECT 1 FROM room_members m WHERE m.user_id = auth.uid()
      AND m.room_id::text = split_part(messages.topic, ':', 2) AND messages.topic LIKE m.topic || '%')`),
  },
  {
    name: 'messages of the last day, which a question is not',
    sql:
      on('SELECT', `inserted_at IS NULL OR inserted_at > now() - interval '1 day'`) + on('INSERT', 'payload IS NULL'),
  },
  {
    name: 'a table the role may not read',
    sql: both(`EXISTS (SELECT FROM secrets s WHERE s.topic = realtime.topic())`),
  },
  { name: 'a regular expression', sql: both(`topic ~ '^room:[0-9]+$' OR realtime.topic() !~ '[a-z]'`) },
  { name: 'a helper in PL/pgSQL', sql: both('by_plpgsql(realtime.topic())'), asked: true },
  { name: 'a function of the whole row', sql: both('of_row(messages.*)'), asked: true },
  {
    name: 'asked to receive, judged to send',
    sql: on('SELECT', `topic ~* '^ROOM:' AND by_plpgsql(topic)`) + on('INSERT', 'is_member(1)'),
    asked: true,
  },
  {
    name: 'one extension raises',
    sql: both(`by_plpgsql(topic) AND (CASE WHEN extension = 'presence' THEN topic::int ELSE 1 END) = 1`),
    asked: true,
  },
]
