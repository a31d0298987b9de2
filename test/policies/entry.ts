// One policy, or a few that belong together, in a shape that people write.

export interface Entry {
  readonly name: string
  /** Public documentation or code where the shape is found. */
  readonly from: string
  /** The table whose rows are judged. */
  readonly table: string
  /** Helper functions, then `CREATE POLICY name ON table ... USING (...)`, as one would type them: TO authenticated, anon,
   *  staff (which inherits from authenticated), or nobody named. Tables without a policy here are open to its readers. */
  readonly sql: string
  /** Readers see the same rows, all or none of them: so it is with these claims. */
  readonly uniform?: true
}

export const docs = {
  rls: 'https://supabase.com/docs/guides/database/postgres/row-level-security',
  mfa: 'https://supabase.com/docs/guides/auth/auth-mfa',
  rbac: 'https://supabase.com/docs/guides/database/postgres/custom-claims-and-role-based-access-control-rbac',
  anonymous: 'https://supabase.com/docs/guides/auth/auth-anonymous',
  sso: 'https://supabase.com/docs/guides/auth/enterprise-sso/auth-sso-saml',
  clerk: 'https://supabase.com/docs/guides/auth/third-party/clerk',
  storage: 'https://supabase.com/docs/guides/storage/security/access-control',
  storageHelpers: 'https://supabase.com/docs/guides/storage/schema/helper-functions',
  realtime: 'https://supabase.com/docs/guides/realtime/authorization',
  broadcast: 'https://supabase.com/docs/guides/realtime/broadcast',
  postgrest: 'https://docs.postgrest.org/en/stable/references/auth.html',
  postgrestClaims: 'https://docs.postgrest.org/en/stable/references/transactions.html',
  postgres: 'https://www.postgresql.org/docs/current/ddl-rowsecurity.html',
  createPolicy: 'https://www.postgresql.org/docs/current/sql-createpolicy.html',
  aws: 'https://aws.amazon.com/blogs/database/multi-tenant-data-isolation-with-postgresql-row-level-security/',
  crunchy: 'https://www.crunchydata.com/blog/row-level-security-for-tenants-in-postgres',
}

/** Found in many applications' migrations, in no one's documentation. */
export const common = 'applications'
