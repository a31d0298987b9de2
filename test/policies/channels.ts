// Supabase's storage and channels.
import { common, docs, type Entry } from './entry.ts'

export const channels: readonly Entry[] = [
  {
    name: 'storage: a public bucket',
    from: docs.storage,
    table: 'storage.objects',
    sql: `CREATE POLICY "avatars" ON storage.objects FOR SELECT TO anon, authenticated USING (bucket_id = 'avatars');`,
    uniform: true,
  },
  {
    name: 'storage: the reader’s folder',
    from: docs.storage,
    table: 'storage.objects',
    sql: `CREATE POLICY "own folder" ON storage.objects FOR SELECT TO authenticated
      USING (bucket_id = 'private' AND (storage.foldername(name))[1] = (SELECT auth.uid()::text));`,
  },
  {
    name: 'storage: the owner, as text',
    from: docs.storage,
    table: 'storage.objects',
    sql: `CREATE POLICY "own" ON storage.objects FOR SELECT TO authenticated USING ((SELECT auth.uid()::text) = owner_id);`,
  },
  {
    name: 'storage: buckets that are public, and one’s own',
    from: docs.storage,
    table: 'storage.objects',
    sql: `CREATE POLICY "read" ON storage.objects FOR SELECT TO authenticated USING (owner = auth.uid()
      OR EXISTS (SELECT 1 FROM storage.buckets b WHERE b.id = bucket_id AND b.public));`,
  },
  {
    name: 'storage: a folder per project',
    from: common,
    table: 'storage.objects',
    sql: `CREATE POLICY "project files" ON storage.objects FOR SELECT TO authenticated USING (EXISTS (SELECT 1 FROM projects p
      JOIN team_members tm ON tm.team_id = p.team_id WHERE p.id::text = (storage.foldername(objects.name))[1] AND tm.user_id = auth.uid()));`,
  },
  {
    name: 'storage: a folder by split_part',
    from: common,
    table: 'storage.objects',
    sql: `CREATE POLICY "own folder" ON storage.objects FOR SELECT TO authenticated USING (split_part(name, '/', 1) = auth.uid()::text);`,
  },
  {
    name: 'storage: a file’s name, by PL/pgSQL',
    from: docs.storageHelpers,
    table: 'storage.objects',
    sql: `CREATE POLICY "cats" ON storage.objects FOR SELECT TO authenticated USING (storage.filename(name) = 'cat.png');`,
    uniform: true,
  },
  {
    name: 'channels: one topic for all',
    from: docs.realtime,
    table: 'broadcasts.messages',
    sql: `CREATE POLICY "room 1" ON broadcasts.messages FOR SELECT TO authenticated USING ((SELECT realtime.topic()) = 'room:1');`,
    uniform: true,
  },
  {
    name: 'channels: members of the topic',
    from: docs.realtime,
    table: 'broadcasts.messages',
    sql: `CREATE POLICY "members" ON broadcasts.messages FOR SELECT TO authenticated USING (EXISTS (SELECT rm.user_id FROM room_members rm
      WHERE rm.user_id = (SELECT auth.uid()) AND rm.topic = (SELECT realtime.topic()) AND broadcasts.messages.extension IN ('broadcast', 'presence')));`,
  },
  {
    name: 'channels: broadcasts only',
    from: docs.realtime,
    table: 'broadcasts.messages',
    sql: `CREATE POLICY "broadcasts" ON broadcasts.messages FOR SELECT TO authenticated
      USING (broadcasts.messages.extension = 'broadcast' AND realtime.topic() LIKE 'room:%');`,
  },
  {
    name: 'channels: a topic per user, by ||',
    from: common,
    table: 'broadcasts.messages',
    sql: `CREATE POLICY "own" ON broadcasts.messages FOR SELECT TO authenticated USING (realtime.topic() = 'user:' || (SELECT auth.uid())::text OR topic = 'user:' || auth.uid());`,
  },
  {
    name: 'channels: a topic per room, by || over memberships',
    from: common,
    table: 'broadcasts.messages',
    sql: `CREATE POLICY "members" ON broadcasts.messages FOR SELECT TO authenticated USING (EXISTS (SELECT 1 FROM room_members rm
      WHERE rm.user_id = auth.uid() AND 'room:' || rm.room_id = realtime.topic()));`,
    uniform: true,
  },
  {
    name: 'channels: the room by split_part',
    from: common,
    table: 'broadcasts.messages',
    sql: `CREATE POLICY "members" ON broadcasts.messages FOR SELECT TO authenticated USING (realtime.topic() LIKE 'room:%' AND EXISTS (
      SELECT 1 FROM room_members rm WHERE rm.room_id::text = split_part(realtime.topic(), ':', 2) AND rm.user_id = auth.uid()));`,
    uniform: true,
  },
  {
    name: 'channels: the room by substring',
    from: common,
    table: 'broadcasts.messages',
    sql: `CREATE POLICY "members" ON broadcasts.messages FOR SELECT TO authenticated USING (CASE WHEN starts_with(realtime.topic(), 'room:')
      THEN EXISTS (SELECT 1 FROM room_members rm WHERE rm.room_id::text = substring(realtime.topic() from 6) AND rm.user_id = auth.uid()
        AND NOT coalesce(rm.muted, false)) ELSE false END);`,
    uniform: true,
  },
  {
    name: 'channels: a topic in any case',
    from: common,
    table: 'broadcasts.messages',
    sql: `CREATE POLICY "members" ON broadcasts.messages FOR SELECT TO authenticated USING (EXISTS (SELECT 1 FROM room_members rm
      WHERE lower(realtime.topic()) = rm.topic AND rm.user_id = auth.uid()) AND private IS NOT FALSE);`,
  },
  {
    name: 'channels: the user of the topic',
    from: common,
    table: 'broadcasts.messages',
    sql: `CREATE POLICY "own" ON broadcasts.messages FOR SELECT TO authenticated USING (extension = 'broadcast'
      AND split_part(realtime.topic(), ':', 1) = 'user' AND nullif(split_part(realtime.topic(), ':', 2), '')::uuid = (SELECT auth.uid()));`,
  },
  {
    name: 'channels: rows of rooms by their topic',
    from: docs.broadcast,
    table: 'broadcasts.messages',
    sql: `CREATE POLICY "rooms" ON broadcasts.messages FOR SELECT TO authenticated USING (topic LIKE 'room:%' AND EXISTS (
      SELECT 1 FROM rooms r JOIN room_members rm ON rm.room_id = r.id WHERE r.topic = messages.topic AND rm.user_id = auth.uid()));`,
  },
  {
    name: 'channels: a topic by a regular expression',
    from: common,
    table: 'broadcasts.messages',
    sql: `CREATE POLICY "rooms" ON broadcasts.messages FOR SELECT TO authenticated USING (topic ~ '^room:[0-9]+$');`,
    uniform: true,
  },
  {
    name: 'messages of rooms that are open, or the reader’s',
    from: common,
    table: 'messages',
    sql: `CREATE POLICY "read" ON messages FOR SELECT TO authenticated USING (EXISTS (SELECT 1 FROM rooms r WHERE r.id = messages.room_id
      AND (r.is_private = false OR EXISTS (SELECT 1 FROM room_members rm WHERE rm.room_id = r.id AND rm.user_id = auth.uid() AND rm.muted IS NOT TRUE))));`,
  },
  {
    name: 'messages, by a function whose names only the caller’s search_path resolves',
    from: common,
    table: 'messages',
    sql: `CREATE FUNCTION in_room(room int) RETURNS boolean LANGUAGE sql STABLE AS $$
        SELECT EXISTS (SELECT 1 FROM room_members WHERE room_id = room AND user_id = auth.uid()) $$;
      CREATE POLICY "read" ON messages FOR SELECT TO authenticated USING (in_room(room_id));`,
  },
]
