// Roles: in a column, in a table, in a claim, in the database; and how one logged in.
import { common, docs, type Entry } from './entry.ts'

export const roles: readonly Entry[] = [
  {
    name: 'administrators by their profile',
    from: common,
    table: 'posts',
    sql: `CREATE POLICY "admins" ON posts FOR SELECT TO authenticated USING (author = auth.uid()
      OR EXISTS (SELECT 1 FROM profiles WHERE profiles.id = auth.uid() AND profiles.role = 'admin'));`,
  },
  {
    name: 'the role of one’s profile, as a value',
    from: common,
    table: 'invitations',
    sql: `CREATE POLICY "staff" ON invitations FOR SELECT TO authenticated
      USING ((SELECT role FROM profiles WHERE id = (SELECT auth.uid())) IN ('admin', 'support'));`,
    uniform: true,
  },
  {
    name: 'owners and administrators of the organisation',
    from: common,
    table: 'projects',
    sql: `CREATE POLICY "managers" ON projects FOR SELECT TO authenticated USING (EXISTS (SELECT 1 FROM org_members m
      WHERE m.org_id = projects.org_id AND m.user_id = (SELECT auth.uid()) AND m.role IN ('owner', 'admin') AND m.suspended IS NOT TRUE));`,
  },
  {
    name: 'a role in app_metadata',
    from: docs.rls,
    table: 'documents',
    sql: `CREATE POLICY "admins" ON documents FOR SELECT TO authenticated
      USING ((SELECT auth.jwt() -> 'app_metadata' ->> 'role') IN ('admin', 'support') OR is_public);`,
  },
  {
    name: 'a list of roles in app_metadata, by ?',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY "editors" ON documents FOR SELECT TO authenticated
      USING ((auth.jwt() -> 'app_metadata' -> 'roles') ? 'editor' AND NOT coalesce(is_public, false));`,
  },
  {
    name: 'a list of roles in app_metadata, by @>',
    from: common,
    table: 'posts',
    sql: `CREATE POLICY "editors" ON posts FOR SELECT TO authenticated
      USING (audience = 'public' OR (auth.jwt() -> 'app_metadata' -> 'roles') @> '["editor"]'::jsonb);`,
  },
  {
    name: 'a list of roles in app_metadata, as an array',
    from: common,
    table: 'posts',
    sql: `CREATE POLICY "viewers" ON posts FOR SELECT TO authenticated USING (audience <> 'private'
      AND 'viewer' = ANY (ARRAY(SELECT jsonb_array_elements_text(auth.jwt() -> 'app_metadata' -> 'roles'))));`,
  },
  {
    name: 'projects listed in a claim',
    from: docs.rls,
    table: 'tasks',
    sql: `CREATE POLICY "listed" ON tasks FOR SELECT TO authenticated USING (project_id IN (
      SELECT jsonb_array_elements_text((auth.jwt() -> 'app_metadata' -> 'projects'))::int));`,
  },
  {
    name: 'has_role() over a table of roles',
    from: common,
    table: 'documents',
    sql: `CREATE FUNCTION has_role(_user_id uuid, _role app_role) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public AS $$
        SELECT EXISTS (SELECT 1 FROM user_roles WHERE user_id = _user_id AND role = _role) $$;
      CREATE POLICY "admins" ON documents FOR SELECT TO authenticated USING (has_role(auth.uid(), 'admin') OR owner_id = auth.uid());`,
  },
  {
    name: 'permissions of one’s roles',
    from: docs.rbac,
    table: 'documents',
    sql: `CREATE POLICY "by permission" ON documents FOR SELECT TO authenticated USING (EXISTS (SELECT 1 FROM user_roles ur
      JOIN role_permissions rp ON rp.role = ur.role WHERE ur.user_id = (SELECT auth.uid()) AND rp.permission = 'documents.read'));`,
    uniform: true,
  },
  {
    name: 'authorize() in PL/pgSQL',
    from: docs.rbac,
    table: 'tasks',
    sql: `CREATE FUNCTION authorize(requested_permission app_permission) RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = '' AS $$
        DECLARE bind_permissions int; user_role public.app_role;
        BEGIN
          SELECT (auth.jwt() ->> 'user_role')::public.app_role INTO user_role;
          SELECT count(*) INTO bind_permissions FROM public.role_permissions
            WHERE role_permissions.permission = requested_permission AND role_permissions.role = user_role;
          RETURN bind_permissions > 0;
        END $$;
      CREATE POLICY "authorized" ON tasks FOR SELECT TO authenticated USING ((SELECT authorize('tasks.read')));`,
    uniform: true,
  },
  {
    name: 'the same permissions, with the role in a claim and in SQL',
    from: docs.rbac,
    table: 'tasks',
    sql: `CREATE FUNCTION may(wanted app_permission) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
        SELECT EXISTS (SELECT 1 FROM public.role_permissions rp
          WHERE rp.permission = wanted AND rp.role = (auth.jwt() ->> 'user_role')::public.app_role) $$;
      CREATE POLICY "authorized" ON tasks FOR SELECT TO authenticated USING ((SELECT may('tasks.read')));`,
    uniform: true,
  },
  {
    name: 'a second factor, for all it is not public',
    from: docs.mfa,
    table: 'documents',
    sql: `CREATE POLICY "read" ON documents FOR SELECT TO authenticated USING (owner_id = auth.uid() OR is_public);
      CREATE POLICY "mfa" ON documents AS RESTRICTIVE TO authenticated USING (is_public OR (SELECT auth.jwt() ->> 'aal') = 'aal2');`,
  },
  {
    name: 'a second factor for those who have one',
    from: docs.mfa,
    table: 'documents',
    sql: `CREATE POLICY "read" ON documents FOR SELECT TO authenticated USING (is_public);
      CREATE POLICY "mfa" ON documents AS RESTRICTIVE TO authenticated USING (array[(SELECT auth.jwt() ->> 'aal')] <@ (
        SELECT CASE WHEN count(id) > 0 THEN array['aal2'] ELSE array['aal1', 'aal2'] END AS aal
        FROM mfa_factors WHERE ((SELECT auth.uid()) = user_id) AND status = 'verified'));`,
  },
  {
    name: 'no anonymous users',
    from: docs.anonymous,
    table: 'posts',
    sql: `CREATE POLICY "read" ON posts FOR SELECT TO authenticated USING (true);
      CREATE POLICY "no anonymous" ON posts AS RESTRICTIVE FOR SELECT TO authenticated
        USING ((SELECT (auth.jwt() ->> 'is_anonymous')::boolean) IS FALSE);`,
    uniform: true,
  },
  {
    name: 'the way of logging in, by a path with a number',
    from: docs.sso,
    table: 'documents',
    sql: `CREATE POLICY "sso" ON documents AS RESTRICTIVE TO authenticated USING (region = (SELECT auth.jwt() #>> '{amr,0,provider}'));
      CREATE POLICY "all" ON documents TO authenticated USING (true);`,
  },
  {
    name: 'a role of the database that inherits another’s policies',
    from: docs.createPolicy,
    table: 'documents',
    sql: `CREATE POLICY "own" ON documents TO authenticated USING (owner_id = auth.uid());
      CREATE POLICY "staff" ON documents TO staff USING (classification < 2);
      CREATE POLICY "public" ON documents TO anon USING (is_public);
      CREATE POLICY "not deleted" ON documents AS RESTRICTIVE TO anon, staff USING (deleted_at IS NULL);`,
  },
  {
    name: 'no more secret than one’s clearance',
    from: docs.postgres,
    table: 'documents',
    sql: `CREATE POLICY "clearance" ON documents USING (classification <= (SELECT clearance FROM profiles WHERE id = auth.uid()));`,
  },
]
