// Teams and projects: chains of one to four tables between a row and its reader.
import { common, docs, type Entry } from './entry.ts'

export const teams: readonly Entry[] = [
  {
    name: 'members of the team',
    from: docs.rls,
    table: 'projects',
    sql: `CREATE POLICY "team" ON projects TO authenticated USING (team_id IN (SELECT team_id FROM team_members WHERE user_id = (SELECT auth.uid())));`,
  },
  {
    name: 'the reader among the members of the team',
    from: docs.rls,
    table: 'projects',
    sql: `CREATE POLICY "team" ON projects TO authenticated USING (
      (SELECT auth.uid()) IN (SELECT user_id FROM team_members WHERE team_members.team_id = projects.team_id));`,
  },
  {
    name: 'teams from a function that gives them',
    from: docs.rls,
    table: 'projects',
    sql: `CREATE FUNCTION get_teams_for_user(user_id uuid) RETURNS SETOF int LANGUAGE sql SECURITY DEFINER SET search_path = public STABLE AS $$
        SELECT team_id FROM team_members WHERE team_members.user_id = $1 $$;
      CREATE POLICY "team" ON projects TO authenticated USING (team_id IN (SELECT get_teams_for_user(auth.uid())));`,
  },
  {
    name: 'two hops by nested IN',
    from: common,
    table: 'tasks',
    sql: `CREATE POLICY "team" ON tasks FOR SELECT TO authenticated USING (project_id IN (SELECT id FROM projects
      WHERE team_id IN (SELECT team_id FROM team_members WHERE user_id = auth.uid())));`,
  },
  {
    name: 'two hops by a join',
    from: common,
    table: 'tasks',
    sql: `CREATE POLICY "team" ON tasks FOR SELECT TO authenticated USING (EXISTS (SELECT 1 FROM projects p
      JOIN team_members tm ON tm.team_id = p.team_id WHERE p.id = tasks.project_id AND tm.user_id = auth.uid()));`,
  },
  {
    name: 'two hops by a comma, as it was written once',
    from: common,
    table: 'tasks',
    sql: `CREATE POLICY "team" ON tasks FOR SELECT TO authenticated USING (EXISTS (SELECT 1 FROM projects p, team_members tm
      WHERE p.id = tasks.project_id AND p.team_id = tm.team_id AND tm.user_id = auth.uid() AND tm.role = 'lead'));`,
  },
  {
    name: 'three hops by joins',
    from: common,
    table: 'comments',
    sql: `CREATE POLICY "team" ON comments FOR SELECT TO authenticated USING (NOT coalesce(hidden, false) AND EXISTS (SELECT 1 FROM tasks t
      INNER JOIN projects p ON p.id = t.project_id INNER JOIN team_members tm ON tm.team_id = p.team_id
      WHERE t.id = comments.task_id AND t.deleted_at IS NULL AND tm.user_id = (SELECT auth.uid())));`,
  },
  {
    name: 'four hops to the organisation',
    from: common,
    table: 'comments',
    sql: `CREATE POLICY "org" ON comments FOR SELECT TO authenticated USING (author = auth.uid() OR task_id IN (SELECT t.id FROM tasks t
      JOIN projects p ON t.project_id = p.id JOIN teams te ON p.team_id = te.id JOIN org_members m ON te.org_id = m.org_id
      WHERE m.user_id = auth.uid() AND m.role IN ('owner', 'admin')));`,
  },
  {
    name: 'functions that call functions',
    from: common,
    table: 'comments',
    sql: `CREATE FUNCTION is_team_member(team int) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public AS $$
        SELECT EXISTS (SELECT 1 FROM team_members WHERE team_id = team AND user_id = auth.uid()) $$;
      CREATE FUNCTION can_read_project(project int) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public AS $$
        SELECT EXISTS (SELECT 1 FROM projects p WHERE p.id = project AND (p.owner_id = auth.uid() OR is_team_member(p.team_id))) $$;
      CREATE POLICY "project" ON comments FOR SELECT TO authenticated USING (EXISTS (SELECT 1 FROM tasks t
        WHERE t.id = comments.task_id AND can_read_project(t.project_id)));`,
  },
  {
    name: 'by visibility',
    from: common,
    table: 'projects',
    sql: `CREATE POLICY "visible" ON projects FOR SELECT TO authenticated USING (visibility = 'public' OR owner_id = auth.uid()
      OR (visibility = 'org' AND org_id IN (SELECT org_id FROM org_members WHERE user_id = auth.uid()))
      OR (visibility = 'team' AND team_id IN (SELECT team_id FROM team_members WHERE user_id = auth.uid())));`,
  },
  {
    name: 'one’s own organisations and those one belongs to',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "orgs" ON documents FOR SELECT TO authenticated USING (org_id IN (
      SELECT m.org_id FROM org_members m WHERE m.user_id = auth.uid() UNION SELECT o.id FROM orgs o WHERE o.owner_id = auth.uid()));`,
  },
  {
    name: 'two-sided hop: the organisation of the row’s project',
    from: common,
    table: 'tasks',
    sql: `CREATE POLICY "org" ON tasks FOR SELECT TO authenticated USING (EXISTS (SELECT 1 FROM projects p WHERE p.id = tasks.project_id
      AND EXISTS (SELECT 1 FROM org_members m WHERE m.org_id = p.org_id AND m.user_id = auth.uid() AND m.role = 'owner')));`,
  },
  {
    name: 'in no archived project, and assigned or in the team',
    from: common,
    table: 'tasks',
    sql: `CREATE POLICY "read" ON tasks FOR SELECT TO authenticated USING (
      NOT EXISTS (SELECT 1 FROM projects p WHERE p.id = tasks.project_id AND p.archived_at IS NOT NULL)
      AND (assignee = auth.uid() OR project_id IN (SELECT p.id FROM projects p JOIN team_members tm USING (team_id) WHERE tm.user_id = auth.uid())));`,
  },
  {
    name: 'sub-organisations, one level down',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "parents" ON documents FOR SELECT TO authenticated USING (org_id IN (SELECT o.id FROM orgs o
      WHERE o.id IN (SELECT org_id FROM org_members WHERE user_id = auth.uid()) OR o.parent_id IN (SELECT org_id FROM org_members WHERE user_id = auth.uid())));`,
  },
  {
    name: 'sub-organisations at any depth, by recursion',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "parents" ON documents FOR SELECT TO authenticated USING (org_id IN (WITH RECURSIVE below AS (
        SELECT m.org_id FROM org_members m WHERE m.user_id = auth.uid() UNION SELECT o.id FROM orgs o JOIN below b ON o.parent_id = b.org_id)
      SELECT org_id FROM below));`,
  },
  {
    name: 'sub-organisations at any depth, by a path',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "parents" ON documents FOR SELECT TO authenticated USING (EXISTS (SELECT 1 FROM orgs child
      JOIN orgs parent ON child.path LIKE parent.path || '%' JOIN org_members m ON m.org_id = parent.id
      WHERE child.id = documents.org_id AND m.user_id = auth.uid()));`,
  },
  {
    name: 'a membership table under a policy of its own',
    from: docs.rls,
    table: 'projects',
    sql: `CREATE POLICY "own memberships" ON team_members FOR SELECT TO authenticated USING (user_id = auth.uid());
      CREATE POLICY "team" ON projects TO authenticated USING (EXISTS (SELECT 1 FROM team_members tm WHERE tm.team_id = projects.team_id));`,
  },
  {
    name: 'a membership table whose policy reads another',
    from: common,
    table: 'tasks',
    sql: `CREATE POLICY "of my orgs" ON projects FOR SELECT TO authenticated USING (org_id IN (SELECT org_id FROM org_members WHERE user_id = auth.uid()));
      CREATE POLICY "of visible projects" ON tasks TO authenticated USING (EXISTS (SELECT 1 FROM projects WHERE projects.id = tasks.project_id));`,
  },
  {
    name: 'is_org_member() in PL/pgSQL',
    from: common,
    table: 'documents',
    sql: `CREATE FUNCTION is_org_member(_org int) RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public AS $$
        BEGIN RETURN EXISTS (SELECT 1 FROM org_members WHERE org_id = _org AND user_id = auth.uid()); END $$;
      CREATE POLICY "org" ON documents FOR SELECT TO authenticated USING (is_org_member(org_id));`,
  },
  {
    name: 'WITH before the memberships',
    from: common,
    table: 'projects',
    sql: `CREATE POLICY "mine" ON projects FOR SELECT TO authenticated USING (org_id IN (
      WITH mine AS (SELECT m.org_id FROM org_members m WHERE m.user_id = auth.uid() AND m.suspended IS NOT TRUE) SELECT mine.org_id FROM mine));`,
  },
  {
    name: 'whoever shares a team with the reader',
    from: common,
    table: 'profiles',
    sql: `CREATE POLICY "team mates" ON profiles FOR SELECT TO authenticated USING (id = auth.uid() OR id IN (
      SELECT theirs.user_id FROM team_members mine JOIN team_members theirs ON theirs.team_id = mine.team_id WHERE mine.user_id = auth.uid()));`,
  },
]
