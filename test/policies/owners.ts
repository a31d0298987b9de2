// Ownership, and what is public besides.
import { common, docs, type Entry } from './entry.ts'

export const owners: readonly Entry[] = [
  {
    name: 'the owner, wrapped for the planner',
    from: docs.rls,
    table: 'tasks',
    sql: `CREATE POLICY "Individuals can view their own" ON tasks FOR SELECT TO authenticated USING ((select auth.uid()) = created_by);`,
  },
  {
    name: 'the owner, said to be somebody',
    from: docs.rls,
    table: 'tasks',
    sql: `CREATE POLICY "own" ON tasks USING (auth.uid() IS NOT NULL AND auth.uid() = assignee);`,
  },
  {
    name: 'everybody, logged in or not',
    from: docs.rls,
    table: 'profiles',
    sql: `CREATE POLICY "Profiles are viewable by everyone" ON profiles FOR SELECT TO authenticated, anon USING (true);`,
    uniform: true,
  },
  {
    name: 'whoever is logged in',
    from: docs.rls,
    table: 'posts',
    sql: `CREATE POLICY "read" ON posts FOR SELECT USING (auth.role() = 'authenticated');`,
  },
  {
    name: 'public, or one’s own',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "read" ON documents FOR SELECT USING (is_public = true OR owner_id = (select auth.uid()));`,
  },
  {
    name: 'one policy for what is public, another for one’s own',
    from: docs.createPolicy,
    table: 'documents',
    sql: `CREATE POLICY "public" ON documents FOR SELECT USING (is_public);
      CREATE POLICY "own" ON documents FOR ALL TO authenticated USING (owner_id = auth.uid()) WITH CHECK (owner_id = auth.uid());`,
  },
  {
    name: 'creator or assignee, never a draft of others',
    from: common,
    table: 'tasks',
    sql: `CREATE POLICY "read" ON tasks FOR SELECT TO authenticated
      USING ((auth.uid() IN (created_by, assignee)) AND (status IS DISTINCT FROM 'draft' OR created_by = auth.uid()));`,
  },
  {
    name: 'PostgREST: a claim of the request',
    from: docs.postgrestClaims,
    table: 'profiles',
    sql: `CREATE POLICY "own" ON profiles USING (email = current_setting('request.jwt.claims', true)::json->>'email');`,
  },
  {
    name: 'PostgREST before version 9: a setting per claim',
    from: docs.postgrestClaims,
    table: 'tasks',
    sql: `CREATE POLICY "own" ON tasks USING (created_by::text = current_setting('request.jwt.claim.sub', true));`,
  },
  {
    name: 'the owner in a JSON column',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "own" ON documents FOR SELECT TO authenticated USING (meta ->> 'owner' = auth.uid()::text);`,
  },
  {
    name: 'CASE by who it is for',
    from: common,
    table: 'tasks',
    sql: `CREATE POLICY "read" ON tasks FOR SELECT TO authenticated
      USING (CASE WHEN is_private THEN assignee = auth.uid() WHEN status = 'draft' THEN created_by = auth.uid() ELSE true END);`,
  },
  {
    name: 'the domain of one’s e-mail address',
    from: common,
    table: 'profiles',
    sql: `CREATE POLICY "colleagues" ON profiles FOR SELECT TO authenticated
      USING (split_part(email, '@', 2) = split_part(auth.jwt() ->> 'email', '@', 2));`,
  },
]
