// Sharing lists, soft delete, bans, and what the time decides.
import { common, docs, type Entry } from './entry.ts'

export const sharing: readonly Entry[] = [
  {
    name: 'the owner and those it is shared with',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "shared" ON documents FOR SELECT TO authenticated USING (owner_id = auth.uid() OR EXISTS (
      SELECT 1 FROM document_shares s WHERE s.document_id = documents.id AND s.user_id = auth.uid()));`,
  },
  {
    name: 'shared with a permission',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "shared" ON documents FOR SELECT TO authenticated USING (id IN (
      SELECT document_id FROM document_shares WHERE user_id = (SELECT auth.uid()) AND permission = ANY (ARRAY['view', 'edit'])));`,
  },
  {
    name: 'shared for a while',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "shared" ON documents FOR SELECT TO authenticated USING (EXISTS (SELECT 1 FROM document_shares s
      WHERE s.document_id = documents.id AND s.user_id = auth.uid() AND (s.expires_at IS NULL OR s.expires_at > now())));`,
  },
  {
    name: 'readers in an array of the row',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "viewers" ON documents FOR SELECT TO authenticated USING (auth.uid() = ANY (viewers) OR owner_id = auth.uid());`,
  },
  {
    name: 'readers in an array of the row, by @>',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "viewers" ON documents FOR SELECT TO authenticated USING (viewers @> ARRAY[auth.uid()]);`,
  },
  {
    name: 'readers in a JSON list of the row',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "readers" ON documents FOR SELECT TO authenticated USING (meta -> 'readers' ? auth.uid()::text);`,
  },
  {
    name: 'what hangs below a shared document',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "shared" ON documents FOR SELECT TO authenticated USING (parent_id IN (
      SELECT s.document_id FROM document_shares s WHERE s.user_id = auth.uid()) OR id IN (
      SELECT s.document_id FROM document_shares s WHERE s.user_id = auth.uid()));`,
  },
  {
    name: 'soft delete, with the owner',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "live ones" ON documents FOR SELECT TO authenticated USING (deleted_at IS NULL AND owner_id = auth.uid());`,
  },
  {
    name: 'soft delete, restrictive',
    from: docs.createPolicy,
    table: 'tasks',
    sql: `CREATE POLICY "hide deleted" ON tasks AS RESTRICTIVE FOR SELECT USING (deleted_at IS NULL);
      CREATE POLICY "mine" ON tasks FOR SELECT TO authenticated USING (auth.uid() = created_by OR auth.uid() = assignee);`,
  },
  {
    name: 'published by now',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "published" ON documents FOR SELECT TO anon, authenticated USING (published_at IS NOT NULL AND published_at <= now());`,
    uniform: true,
  },
  {
    name: 'between two moments',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "window" ON documents FOR SELECT TO authenticated USING (starts_at <= now() AND expires_at > now());`,
    uniform: true,
  },
  {
    name: 'not expired, where most never do',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "current" ON documents FOR SELECT TO authenticated USING (owner_id = auth.uid() AND coalesce(expires_at, 'infinity') > CURRENT_TIMESTAMP);`,
  },
  {
    name: 'of the last day, and one’s own',
    from: common,
    table: 'posts',
    sql: `CREATE POLICY "recent" ON posts FOR SELECT TO authenticated USING (author = auth.uid() OR created_at > now() - interval '1 day');`,
  },
  {
    name: 'members whose membership has not run out',
    from: common,
    table: 'projects',
    sql: `CREATE POLICY "members" ON projects FOR SELECT TO authenticated USING (EXISTS (SELECT 1 FROM org_members m
      WHERE m.org_id = projects.org_id AND m.user_id = auth.uid() AND coalesce(m.expires_at, 'infinity'::timestamptz) > now()));`,
  },
  {
    name: 'not for who is banned',
    from: common,
    table: 'posts',
    sql: `CREATE POLICY "read" ON posts FOR SELECT TO authenticated USING (audience = 'public'
      AND NOT EXISTS (SELECT 1 FROM bans b WHERE b.org_id = posts.org_id AND b.user_id = auth.uid()));`,
  },
  {
    name: 'not for who is banned until later',
    from: common,
    table: 'posts',
    sql: `CREATE POLICY "read" ON posts FOR SELECT TO authenticated USING (true);
      CREATE POLICY "bans" ON posts AS RESTRICTIVE FOR SELECT TO authenticated USING (NOT EXISTS (
        SELECT 1 FROM bans b WHERE b.org_id = posts.org_id AND b.user_id = auth.uid() AND b.until > now()));`,
  },
  {
    name: 'in no organisation that banned the reader, by NOT IN',
    from: common,
    table: 'posts',
    sql: `CREATE POLICY "read" ON posts FOR SELECT TO authenticated USING (
      org_id NOT IN (SELECT b.org_id FROM bans b WHERE b.user_id = auth.uid() AND b.org_id IS NOT NULL));`,
  },
  {
    name: 'in no organisation that banned the reader, by NOT IN over NULLs',
    from: common,
    table: 'posts',
    sql: `CREATE POLICY "read" ON posts FOR SELECT TO authenticated USING (author = auth.uid()
      OR org_id NOT IN (SELECT b.org_id FROM bans b WHERE b.user_id = auth.uid()));`,
  },
  {
    name: 'nobody the reader has blocked',
    from: common,
    table: 'posts',
    sql: `CREATE POLICY "unblocked" ON posts FOR SELECT TO authenticated USING (
      author NOT IN (SELECT blocked FROM blocks WHERE blocker = auth.uid()));`,
  },
  {
    name: 'nobody who blocked the reader, or is blocked',
    from: common,
    table: 'posts',
    sql: `CREATE POLICY "unblocked" ON posts FOR SELECT TO authenticated USING (NOT EXISTS (SELECT 1 FROM blocks b
      WHERE (b.blocker = auth.uid() AND b.blocked = posts.author) OR (b.blocker = posts.author AND b.blocked = auth.uid())));`,
  },
  {
    name: 'public, one’s own, and of those one follows',
    from: common,
    table: 'posts',
    sql: `CREATE POLICY "feed" ON posts FOR SELECT TO authenticated USING (audience = 'public' OR author = auth.uid()
      OR (audience = 'followers' AND author IN (SELECT followee FROM follows WHERE follower = auth.uid())));`,
  },
  {
    name: 'friends of friends',
    from: common,
    table: 'posts',
    sql: `CREATE POLICY "feed" ON posts FOR SELECT TO authenticated USING (author IN (SELECT f2.followee FROM follows f1
      JOIN follows f2 ON f2.follower = f1.followee WHERE f1.follower = auth.uid()) AND audience IN ('public', 'followers'));`,
  },
  {
    name: 'more than one share',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "popular" ON documents FOR SELECT TO authenticated USING (
      (SELECT count(*) FROM document_shares s WHERE s.document_id = documents.id) > 1);`,
    uniform: true,
  },
  {
    name: 'any share at all, by counting',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "shared" ON documents FOR SELECT TO authenticated USING (
      (SELECT count(*) FROM document_shares s WHERE s.document_id = documents.id AND s.user_id = auth.uid()) > 0);`,
  },
  {
    name: 'only outside working hours',
    from: common,
    table: 'posts',
    sql: `CREATE POLICY "hours" ON posts FOR SELECT TO authenticated USING (extract(dow FROM created_at) NOT IN (0, 6) OR author = auth.uid());`,
  },
  {
    name: 'due from today on',
    from: common,
    table: 'tasks',
    sql: `CREATE POLICY "due" ON tasks FOR SELECT TO authenticated USING (due_on >= CURRENT_DATE AND assignee = auth.uid());`,
  },
]
