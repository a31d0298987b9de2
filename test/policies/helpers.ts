// Helper functions and subqueries in the further ways they are written.
import { common, docs, type Entry } from './entry.ts'

const ways = Array.from(
  { length: 13 },
  (_, i) => `project_id IN (SELECT p.id FROM projects p WHERE p.owner_id = auth.uid() AND p.org_id = ${i})`,
)

export const helpers: readonly Entry[] = [
  {
    name: 'one’s role from a function',
    from: docs.rls,
    table: 'posts',
    sql: `CREATE FUNCTION my_role() RETURNS text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public AS $$
        SELECT role FROM profiles WHERE id = auth.uid() $$;
      CREATE POLICY "admins" ON posts FOR SELECT TO authenticated USING ((SELECT my_role()) = 'admin' OR author = auth.uid());`,
  },
  {
    name: 'a function that runs as its caller, under a policy',
    from: common,
    table: 'messages',
    sql: `CREATE FUNCTION is_room_member(_room_id int, _user_id uuid DEFAULT NULL) RETURNS boolean LANGUAGE sql STABLE SECURITY INVOKER AS $$
        SELECT EXISTS (SELECT 1 FROM public.room_members rm WHERE rm.room_id = _room_id AND rm.user_id = coalesce(_user_id, auth.uid())) $$;
      CREATE POLICY "own memberships" ON room_members FOR SELECT TO authenticated USING (user_id = auth.uid() AND muted IS NOT TRUE);
      CREATE POLICY "members" ON messages FOR SELECT TO authenticated USING (is_room_member(room_id, auth.uid()));`,
  },
  {
    name: 'a function in SQL’s own notation',
    from: common,
    table: 'messages',
    sql: `CREATE FUNCTION reads_room(room int) RETURNS boolean STABLE SECURITY DEFINER
        RETURN room IN (SELECT rm.room_id FROM room_members rm WHERE rm.user_id = auth.uid());
      CREATE POLICY "members" ON messages FOR SELECT TO authenticated USING (reads_room(room_id) OR sender = auth.uid());`,
  },
  {
    name: 'a function that returns a table',
    from: common,
    table: 'projects',
    sql: `CREATE FUNCTION my_teams() RETURNS TABLE (id int, part text) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public AS $$
        SELECT team_id, role FROM team_members WHERE user_id = auth.uid() $$;
      CREATE POLICY "leads" ON projects FOR SELECT TO authenticated USING (team_id IN (SELECT mine.id FROM my_teams() mine WHERE mine.part = 'lead'));`,
  },
  {
    name: 'an array from a function',
    from: common,
    table: 'projects',
    sql: `CREATE FUNCTION my_team_ids() RETURNS int[] LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public AS $$
        SELECT ARRAY(SELECT team_id FROM team_members WHERE user_id = auth.uid()) $$;
      CREATE POLICY "teams" ON projects FOR SELECT TO authenticated USING (team_id = ANY (my_team_ids()));`,
  },
  {
    name: 'a derived table',
    from: common,
    table: 'projects',
    sql: `CREATE POLICY "teams" ON projects FOR SELECT TO authenticated USING (EXISTS (SELECT 1 FROM (
      SELECT tm.team_id FROM team_members tm WHERE tm.user_id = auth.uid()) mine WHERE mine.team_id = projects.team_id));`,
  },
  {
    name: 'two columns at once',
    from: common,
    table: 'projects',
    sql: `CREATE POLICY "orgs" ON projects FOR SELECT TO authenticated USING ((org_id, auth.uid()) IN (SELECT org_id, user_id FROM org_members));`,
  },
  {
    name: 'DISTINCT, ORDER BY and LIMIT 1 that change nothing',
    from: common,
    table: 'projects',
    sql: `CREATE POLICY "orgs" ON projects FOR SELECT TO authenticated USING (org_id IN (SELECT DISTINCT m.org_id FROM org_members m
        WHERE m.user_id = auth.uid() ORDER BY m.org_id) OR EXISTS (SELECT 1 FROM team_members tm WHERE tm.team_id = projects.team_id AND tm.user_id = auth.uid() LIMIT 1));`,
  },
  {
    name: 'the owner of the project or a member of its team, by a left join',
    from: common,
    table: 'tasks',
    sql: `CREATE POLICY "read" ON tasks FOR SELECT TO authenticated USING (EXISTS (SELECT 1 FROM projects p
      LEFT JOIN team_members tm ON tm.team_id = p.team_id AND tm.user_id = auth.uid()
      WHERE p.id = tasks.project_id AND (p.owner_id = auth.uid() OR tm.user_id IS NOT NULL)));`,
  },
  {
    name: 'sixteen ways to see a task',
    from: common,
    table: 'tasks',
    sql: `CREATE POLICY "read" ON tasks FOR SELECT TO authenticated USING (created_by = auth.uid() OR assignee = auth.uid()
      OR EXISTS (SELECT 1 FROM comments c WHERE c.task_id = tasks.id AND c.author = auth.uid()) OR ${ways.join('\n      OR ')});`,
  },
  {
    name: 'an id in a JSON list of the token, by to_jsonb',
    from: common,
    table: 'tasks',
    sql: `CREATE POLICY "listed" ON tasks FOR SELECT TO authenticated USING ((auth.jwt() -> 'app_metadata' -> 'projects') @> to_jsonb(project_id));`,
  },
  {
    name: 'one’s first role, whichever that is',
    from: common,
    table: 'posts',
    sql: `CREATE POLICY "owners" ON posts FOR SELECT TO authenticated USING (author = auth.uid()
      OR (SELECT role FROM org_members WHERE user_id = auth.uid() ORDER BY org_id LIMIT 1) = 'owner');`,
  },
  {
    name: 'the author’s own wish, in a table of settings that may be missing',
    from: common,
    table: 'posts',
    sql: `CREATE POLICY "not disabled" ON posts FOR SELECT TO authenticated USING (author = auth.uid() OR coalesce(
      (SELECT NOT p.disabled FROM profiles p WHERE p.id = posts.author), true));`,
  },
]
