// Transactions over the shared tables, one after the other: rows and what decides about them, in the middle of chains too.
import { people, tenants } from './schema.ts'

export interface Transaction {
  readonly name: string
  readonly sql: string
}

/** Copies of some rows under other keys. */
const copied = (table: string, where: string): string =>
  `INSERT INTO ${table} SELECT (jsonb_populate_record(t, jsonb_build_object('id', t.id + 1000))).* FROM ${table} t WHERE ${where};`

const copiedByUuid = (table: string, where: string): string =>
  `INSERT INTO ${table} SELECT (jsonb_populate_record(t, jsonb_build_object('id', overlay(t.id::text placing '9' from 1 for 1)))).*
    FROM ${table} t WHERE ${where};`

const granted = (user: string, modulus: number): string => `
  INSERT INTO org_members SELECT id, '${user}', 'owner', false, NULL FROM orgs WHERE id % ${modulus} = 0 ON CONFLICT DO NOTHING;
  INSERT INTO team_members SELECT id, '${user}', 'lead' FROM teams WHERE id % ${modulus} = 0 ON CONFLICT DO NOTHING;
  INSERT INTO room_members SELECT id, '${user}', topic, 'member', false FROM rooms WHERE id % ${modulus} = 0 ON CONFLICT DO NOTHING;
  INSERT INTO document_shares SELECT id, '${user}', 'view', now() + interval '1 day' FROM documents
    WHERE right(id::text, 1)::int % ${modulus} = 0 ON CONFLICT DO NOTHING;`

const revoked = (where: string): string => `
  DELETE FROM org_members WHERE ${where}; DELETE FROM team_members WHERE ${where}; DELETE FROM room_members WHERE ${where};
  DELETE FROM document_shares WHERE ${where};`

export const transactions: readonly Transaction[] = [
  {
    name: 'rows inserted in every guarded table',
    sql: [
      ...['tasks', 'comments', 'posts', 'messages', 'projects', 'broadcasts.messages', 'invitations'].map(table =>
        copied(table, 'id % 9 = 1'),
      ),
      ...['documents', 'storage.objects'].map(table => copiedByUuid(table, `right(id::text, 1) = '4'`)),
    ].join('\n'),
  },
  {
    name: 'rows updated: their owners change places',
    sql: `UPDATE tasks SET assignee = created_by, created_by = assignee, title = title || '!' WHERE id % 5 = 0;
      UPDATE documents SET owner_id = '${people.bob}', title = 'moved' WHERE owner_id = '${people.ada}' AND right(id::text, 1) < '5';
      UPDATE posts SET author = CASE author WHEN '${people.ada}' THEN '${people.cid}' WHEN '${people.cid}' THEN NULL ELSE '${people.ada}' END::uuid WHERE id % 4 = 0;
      UPDATE comments SET author = '${people.bob}', hidden = NOT hidden WHERE id % 6 = 0;
      UPDATE storage.objects SET owner_id = '${people.ada}', owner = '${people.ada}', name = '${people.bob}/' || name WHERE right(id::text, 1) = '3';
      UPDATE projects SET owner_id = '${people.cid}' WHERE id % 3 = 0; UPDATE messages SET room_id = room_id + 1 WHERE id % 3 = 0;
      UPDATE broadcasts.messages SET topic = 'room:2', extension = 'presence' WHERE id % 5 = 0;
      UPDATE invitations SET email = 'bob@acme.test', status = 'pending' WHERE id % 7 = 0;`,
  },
  {
    name: 'rows deleted',
    sql: ['tasks', 'comments', 'posts', 'messages', 'broadcasts.messages', 'invitations']
      .map(table => `DELETE FROM ${table} WHERE id % 11 = 2;`)
      .concat(
        ['documents', 'storage.objects'].map(table => `DELETE FROM ${table} WHERE right(id::text, 2) IN ('17', '55');`),
      )
      .join('\n'),
  },
  { name: 'grants', sql: granted(people.bob, 2) + granted(people.cid, 3) },
  {
    name: 'grants of roles, permissions, follows; bans and blocks',
    sql: `INSERT INTO user_roles VALUES (900, '${people.cid}', 'admin'), (901, '${people.bob}', 'moderator') ON CONFLICT DO NOTHING;
      INSERT INTO role_permissions VALUES (900, 'viewer', 'documents.read'), (901, 'viewer', 'tasks.read');
      INSERT INTO follows VALUES ('${people.ada}', '${people.bob}'), ('${people.bob}', '${people.eve}'), ('${people.cid}', '${people.ada}') ON CONFLICT DO NOTHING;
      INSERT INTO blocks VALUES ('${people.ada}', '${people.dan}'), ('${people.cid}', '${people.bob}') ON CONFLICT DO NOTHING;
      INSERT INTO bans VALUES (900, 2, '${people.ada}', now() + interval '1 day'), (901, NULL, '${people.bob}', NULL), (902, 3, '${people.cid}', 'infinity');`,
  },
  {
    name: 'revocations',
    sql: revoked(`user_id = '${people.ada}' AND ascii(right(md5(user_id::text || ctid::text), 1)) % 2 = 0`),
  },
  {
    name: 'the same, taken back or changed in place',
    sql: `UPDATE org_members SET role = CASE role WHEN 'owner' THEN 'guest' ELSE 'owner' END, suspended = NOT coalesce(suspended, true),
        expires_at = CASE WHEN expires_at > now() THEN now() - interval '1 hour' ELSE now() + interval '1 day' END WHERE org_id % 2 = 0;
      UPDATE team_members SET role = 'lead' WHERE team_id % 3 = 1; UPDATE room_members SET muted = muted IS NOT TRUE WHERE room_id % 2 = 1;
      UPDATE document_shares SET permission = 'edit', expires_at = NULL WHERE permission = 'none';
      UPDATE document_shares SET expires_at = now() - interval '1 minute' WHERE permission = 'view' AND user_id = '${people.bob}';
      DELETE FROM bans WHERE org_id IS NULL; UPDATE bans SET until = now() - interval '1 second' WHERE id % 2 = 0; DELETE FROM blocks WHERE blocker = '${people.ada}';
      DELETE FROM role_permissions WHERE id = 2; DELETE FROM user_roles WHERE user_id = '${people.ada}' AND role = 'moderator';`,
  },
  {
    name: 'the middle of chains: teams, projects and tasks move',
    sql: `UPDATE teams SET org_id = org_id % 4 + 1 WHERE id % 2 = 0; UPDATE projects SET team_id = coalesce(team_id, 0) + 1 WHERE id % 3 = 1;
      UPDATE tasks SET project_id = project_id % 20 + 1 WHERE id % 4 = 1; UPDATE orgs SET parent_id = 2, owner_id = '${people.ada}' WHERE id IN (4, 6, 9);
      UPDATE projects SET archived_at = CASE WHEN archived_at IS NULL THEN now() END WHERE id % 4 = 0; UPDATE documents SET parent_id = NULL WHERE right(id::text, 1) = '7';
      UPDATE rooms SET is_private = NOT is_private, topic = 'was:' || id WHERE id % 5 = 0;`,
  },
  {
    name: 'keys: of rows, of what lies between, of memberships',
    sql: `UPDATE tasks SET id = id + 5000 WHERE id % 13 = 3; UPDATE comments SET task_id = task_id + 5000 WHERE task_id % 13 = 3;
      UPDATE projects SET id = id + 500 WHERE id IN (5, 6); UPDATE tasks SET project_id = 505 WHERE project_id = 5;
      UPDATE team_members SET team_id = team_id + 100 WHERE team_id IN (2, 3); UPDATE team_members SET team_id = team_id - 101 WHERE team_id = 103
        AND NOT EXISTS (SELECT FROM team_members o WHERE o.team_id = 2 AND o.user_id = team_members.user_id);
      UPDATE org_members SET user_id = '${people.cid}' WHERE org_id = 1 AND user_id = '${people.bob}'
        AND NOT EXISTS (SELECT FROM org_members o WHERE o.org_id = 1 AND o.user_id = '${people.cid}');
      UPDATE posts SET id = id + 100000 WHERE id % 17 = 0; UPDATE messages SET id = id + 100000, room_id = 1 WHERE id % 19 = 0;`,
  },
  {
    name: 'flags, arrays, documents, tenants',
    sql: `UPDATE documents SET is_public = is_public IS NOT TRUE, deleted_at = CASE WHEN deleted_at IS NULL THEN now() END WHERE right(id::text, 1) IN ('1', '2');
      UPDATE documents SET viewers = array_append(viewers, '${people.cid}'), meta = jsonb_build_object('owner', '${people.ada}', 'readers', jsonb_build_array('${people.bob}', NULL, 7))
        WHERE right(id::text, 1) = '5';
      UPDATE documents SET viewers = ARRAY[]::uuid[], meta = '"text"', region = 'us', classification = NULL, tenant_id = '${tenants.bolt}' WHERE right(id::text, 1) = '6';
      UPDATE tasks SET is_private = NOT is_private, status = 'draft', deleted_at = NULL, due_on = CURRENT_DATE WHERE id % 6 = 1;
      UPDATE posts SET audience = 'followers', created_at = now() WHERE id % 8 = 1; UPDATE storage.buckets SET public = public IS NOT TRUE;
      UPDATE projects SET visibility = CASE visibility WHEN 'team' THEN 'org' ELSE 'team' END WHERE id % 2 = 0;`,
  },
  {
    name: 'profiles',
    sql: `UPDATE profiles SET role = CASE role WHEN 'admin' THEN 'member' ELSE 'admin' END, tenant_id = '${tenants.acme}', clearance = 3, disabled = NOT disabled
      WHERE id IN ('${people.ada}', '${people.bob}'); UPDATE mfa_factors SET status = 'verified'; DELETE FROM profiles WHERE id = '${people.cid}';`,
  },
  {
    name: 'a grant, rows under it and a revocation, and values that come back',
    sql: `${granted(people.ada, 2)}
      INSERT INTO projects VALUES (800, 2, 2, NULL, 'team', NULL), (801, 4, 3, '${people.bob}', 'org', NULL);
      INSERT INTO tasks SELECT 8000 + i, 800 + i % 2, '${people.dan}', NULL, 'between', 'open', false, 1, NULL, NULL, NULL FROM generate_series(1, 6) i;
      INSERT INTO comments SELECT 8000 + i, 8000 + i, NULL, 'between', false FROM generate_series(1, 6) i;
      UPDATE tasks SET is_private = true WHERE id = 8001; UPDATE tasks SET is_private = false WHERE id = 8001;
      UPDATE projects SET team_id = 1 WHERE id = 800; UPDATE projects SET team_id = 2 WHERE id = 800;
      ${revoked(`user_id = '${people.bob}' AND ctid IS NOT NULL`)}
      INSERT INTO team_members VALUES (3, '${people.bob}', 'member'); DELETE FROM tasks WHERE id = 8002; UPDATE tasks SET id = 8002 WHERE id = 8003;`,
  },
  {
    name: 'what lies between is deleted',
    sql: `DELETE FROM projects WHERE id % 3 = 2; DELETE FROM teams WHERE id IN (2, 4, 9); DELETE FROM tasks WHERE id % 7 = 3; DELETE FROM rooms WHERE id % 4 = 0;
      DELETE FROM orgs WHERE id = 3; DELETE FROM storage.buckets WHERE id = 'team';`,
  },
  { name: 'somebody leaves for good', sql: revoked(`user_id = '${people.cid}'`) },
  { name: 'tables of memberships emptied', sql: 'TRUNCATE bans, blocks; TRUNCATE user_roles;' },
]

/** What is over a moment after its commit, without a further one. */
export const expiring = `
    UPDATE documents SET expires_at = now() + interval '1500 ms', starts_at = now() - interval '1 day' WHERE right(id::text, 1) IN ('8', '9');
    UPDATE documents SET starts_at = now() + interval '1500 ms', expires_at = NULL, published_at = now() + interval '1500 ms' WHERE right(id::text, 1) = '0';
    UPDATE document_shares SET expires_at = now() + interval '1500 ms' WHERE user_id = '${people.ada}';
    UPDATE org_members SET expires_at = now() + interval '1500 ms' WHERE org_id % 3 = 1;
    UPDATE posts SET created_at = now() - interval '1 day' + interval '1500 ms' WHERE id % 5 = 2;
    INSERT INTO bans VALUES (950, 1, '${people.ada}', now() + interval '1500 ms'), (951, 2, '${people.bob}', now() + interval '1500 ms');`
