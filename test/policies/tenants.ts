// Tenants: by claims, by settings of one's own, by membership.
import { common, docs, type Entry } from './entry.ts'

export const tenantPolicies: readonly Entry[] = [
  {
    name: 'the tenant in app_metadata',
    from: docs.rls,
    table: 'documents',
    sql: `CREATE POLICY "tenant" ON documents TO authenticated USING (tenant_id = (auth.jwt() -> 'app_metadata' ->> 'tenant_id')::uuid);`,
  },
  {
    name: 'the organisation of a third party’s token, in its old place or its new one',
    from: docs.clerk,
    table: 'projects',
    sql: `CREATE POLICY "org" ON projects AS PERMISSIVE FOR SELECT TO authenticated
      USING (org_id::text = coalesce(auth.jwt() ->> 'org_id', auth.jwt() -> 'o' ->> 'id'));`,
  },
  {
    name: 'the tenant of one’s profile',
    from: docs.rls,
    table: 'documents',
    sql: `CREATE POLICY "tenant" ON documents TO authenticated USING (tenant_id = (SELECT tenant_id FROM profiles WHERE id = (SELECT auth.uid())));`,
  },
  {
    name: 'app.: a setting that must be there',
    from: docs.aws,
    table: 'documents',
    sql: `CREATE POLICY tenant_isolation_policy ON documents USING (tenant_id = current_setting('app.current_tenant')::uuid);`,
  },
  {
    name: 'app.: the tenant as text',
    from: docs.crunchy,
    table: 'documents',
    sql: `CREATE POLICY tenant ON documents USING (tenant_id::text = current_setting('app.tenant_id', true));`,
  },
  {
    name: 'app.: an empty setting is no tenant',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY tenant ON documents USING (tenant_id = NULLIF(current_setting('app.tenant_id', TRUE), '')::uuid);`,
  },
  {
    name: 'app.: membership of the user it names',
    from: common,
    table: 'projects',
    sql: `CREATE POLICY member ON projects FOR SELECT USING (EXISTS (SELECT 1 FROM org_members m
      WHERE m.org_id = projects.org_id AND m.user_id = nullif(current_setting('app.user_id', true), '')::uuid));`,
  },
  {
    name: 'app.: administrators and owners',
    from: common,
    table: 'tasks',
    sql: `CREATE POLICY read ON tasks USING (current_setting('app.role', true) IN ('admin', 'owner')
      OR created_by::text = current_setting('app.user_id', true));`,
  },
  {
    name: 'app.: a switch that lets all through',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY tenant ON documents USING (coalesce(nullif(current_setting('app.bypass_rls', true), ''), 'off') = 'on'
      OR tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid);`,
  },
  {
    name: 'app.: a list with commas',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY tenants ON documents USING (tenant_id::text = ANY (string_to_array(current_setting('app.tenant_ids', true), ',')));`,
  },
  {
    name: 'app.: behind a function of one’s own',
    from: common,
    table: 'documents',
    sql: `CREATE FUNCTION current_tenant_id() RETURNS uuid LANGUAGE sql STABLE AS $$ SELECT nullif(current_setting('app.tenant_id', true), '')::uuid $$;
      CREATE POLICY tenant ON documents USING (tenant_id = current_tenant_id());`,
  },
  {
    name: 'app.: a region, or everywhere',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY region ON documents USING (region IN (current_setting('app.region', true), 'global'));`,
  },
  {
    name: 'app.: how secret it may be',
    from: common,
    table: 'documents',
    sql: `CREATE POLICY clearance ON documents USING (classification <= coalesce(nullif(current_setting('app.clearance', true), '')::int, 0));`,
  },
  {
    name: 'app.: the tenant one table further',
    from: common,
    table: 'tasks',
    sql: `CREATE POLICY tenant ON tasks USING (project_id IN (SELECT p.id FROM projects p
      WHERE p.org_id = nullif(current_setting('app.org_id', true), '')::int AND p.archived_at IS NULL));`,
  },
  {
    name: 'app.: invitations to an address, in any case',
    from: common,
    table: 'invitations',
    sql: `CREATE POLICY mine ON invitations FOR SELECT USING (lower(email) = lower(current_setting('app.email', true)) AND status = 'pending');`,
  },
  {
    name: 'app.: a JSON list of ids',
    from: common,
    table: 'tasks',
    sql: `CREATE POLICY listed ON tasks USING (project_id = ANY (ARRAY(
      SELECT jsonb_array_elements_text(nullif(current_setting('app.project_ids', true), '')::jsonb)::int)));`,
  },
  {
    name: 'a restrictive tenant around permissive rules',
    from: docs.createPolicy,
    table: 'documents',
    sql: `CREATE POLICY tenant ON documents AS RESTRICTIVE TO authenticated USING (tenant_id = (auth.jwt() ->> 'tenant_id')::uuid);
      CREATE POLICY public ON documents FOR SELECT USING (is_public);
      CREATE POLICY own ON documents USING (owner_id = auth.uid());`,
  },
]
