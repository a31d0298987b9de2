// Three small schemas as applications have them, with generated rows: a workspace (organisations, teams, projects, tasks), a
// library of shared documents and posts, and Supabase's storage and channels. The same rows in every run.

export const people = {
  ada: '00000000-0000-4000-8000-00000000000a',
  bob: '00000000-0000-4000-8000-00000000000b',
  cid: '00000000-0000-4000-8000-00000000000c',
  dan: '00000000-0000-4000-8000-00000000000d',
  eve: '00000000-0000-4000-8000-00000000000e',
}

export const tenants = {
  acme: '10000000-0000-4000-8000-000000000001',
  bolt: '10000000-0000-4000-8000-000000000002',
}

const workspace = `
  CREATE TYPE app_role AS ENUM ('viewer', 'moderator', 'admin');
  CREATE TYPE app_permission AS ENUM ('documents.read', 'tasks.read', 'posts.read');
  CREATE TABLE orgs (id int PRIMARY KEY, parent_id int, owner_id uuid, name text, path text, is_active boolean);
  CREATE TABLE org_members (org_id int, user_id uuid, role text, suspended boolean, expires_at timestamptz,
    PRIMARY KEY (org_id, user_id));
  CREATE TABLE teams (id int PRIMARY KEY, org_id int, name text);
  CREATE TABLE team_members (team_id int, user_id uuid, role text, PRIMARY KEY (team_id, user_id));
  CREATE TABLE projects (id int PRIMARY KEY, org_id int, team_id int, owner_id uuid, visibility text, archived_at timestamptz);
  CREATE TABLE tasks (id int PRIMARY KEY, project_id int, created_by uuid, assignee uuid, title text, status text,
    is_private boolean, priority int, labels text[], deleted_at timestamptz, due_on date);
  CREATE TABLE comments (id bigint PRIMARY KEY, task_id int, author uuid, body text, hidden boolean);
  CREATE TABLE profiles (id uuid PRIMARY KEY, org_id int, tenant_id uuid, role text, email text, clearance int, disabled boolean);
  CREATE TABLE user_roles (id int PRIMARY KEY, user_id uuid, role app_role, UNIQUE (user_id, role));
  CREATE TABLE role_permissions (id int PRIMARY KEY, role app_role, permission app_permission);
  CREATE TABLE invitations (id int PRIMARY KEY, org_id int, email text, status text, expires_at timestamptz);
`

const library = `
  CREATE TABLE documents (id uuid PRIMARY KEY, tenant_id uuid, org_id int, owner_id uuid, parent_id uuid, title text,
    is_public boolean, region text, classification int, viewers uuid[], meta jsonb, starts_at timestamptz,
    expires_at timestamptz, published_at timestamptz, deleted_at timestamptz);
  CREATE TABLE document_shares (document_id uuid, user_id uuid, permission text, expires_at timestamptz,
    PRIMARY KEY (document_id, user_id));
  CREATE TABLE posts (id bigint PRIMARY KEY, author uuid, audience text, org_id int, body text, created_at timestamptz);
  CREATE TABLE follows (follower uuid, followee uuid, PRIMARY KEY (follower, followee));
  CREATE TABLE blocks (blocker uuid, blocked uuid, PRIMARY KEY (blocker, blocked));
  CREATE TABLE bans (id int PRIMARY KEY, org_id int, user_id uuid, until timestamptz);
`

// The shapes of Supabase's own schemas, with the functions that its policies call.
const supabase = `
  CREATE SCHEMA storage; CREATE SCHEMA broadcasts; CREATE SCHEMA IF NOT EXISTS realtime;
  CREATE TABLE storage.buckets (id text PRIMARY KEY, name text, public boolean);
  CREATE TABLE storage.objects (id uuid PRIMARY KEY, bucket_id text, name text, owner uuid, owner_id text, metadata jsonb);
  CREATE FUNCTION storage.foldername(name text) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT string_to_array(name, '/') $$;
  CREATE FUNCTION storage.filename(name text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
    DECLARE parts text[]; BEGIN
      SELECT string_to_array(name, '/') INTO parts; RETURN parts[array_length(parts, 1)];
    END $$;
  CREATE TABLE mfa_factors (id int PRIMARY KEY, user_id uuid, status text);
  CREATE TABLE rooms (id int PRIMARY KEY, topic text UNIQUE, is_private boolean);
  CREATE TABLE room_members (room_id int, user_id uuid, topic text, role text, muted boolean, PRIMARY KEY (room_id, user_id));
  CREATE TABLE messages (id bigint PRIMARY KEY, room_id int, sender uuid, body text, sent_at timestamptz);
  -- As realtime.messages, whose rows are nobody's to follow.
  CREATE TABLE broadcasts.messages (id int PRIMARY KEY, topic text, extension text, event text, private boolean);
  CREATE OR REPLACE FUNCTION realtime.topic() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT nullif(current_setting('realtime.topic', true), '')::text $$;
`

/** A deterministic choice: the n-th dice of a row, from 0 up to, and not including, \`sides\`. */
const dice = `
  CREATE FUNCTION pg_temp.dice(i int, n int, sides int) RETURNS int LANGUAGE sql IMMUTABLE AS $$
    SELECT (('x' || substr(md5('tidegate/' || n || '/' || i), 1, 7))::bit(28)::int % sides) $$;
  CREATE FUNCTION pg_temp.one(i int, n int, choices anyarray) RETURNS anyelement LANGUAGE sql IMMUTABLE AS $$
    SELECT choices[1 + pg_temp.dice(i, n, cardinality(choices))] $$;
  CREATE FUNCTION pg_temp.person(i int, n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT pg_temp.one(i, n, ARRAY['${Object.values(people).join("', '")}', NULL]::uuid[]) $$;
  CREATE FUNCTION pg_temp.tenant(i int, n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT pg_temp.one(i, n, ARRAY['${tenants.acme}', '${tenants.bolt}', '10000000-0000-4000-8000-000000000003', NULL]::uuid[]) $$;
  -- Far enough from now that nothing flips while a test runs.
  CREATE FUNCTION pg_temp.moment(i int, n int) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT pg_temp.one(i, n, ARRAY[NULL, now() - interval '50 hours', now() - interval '12 hours', now() + interval '6 hours',
      now() + interval '90 days', 'infinity', '-infinity']::timestamptz[]) $$;
`

const rows = `
  INSERT INTO orgs SELECT i, pg_temp.one(i, 1, ARRAY[1, 2, 3, NULL]), pg_temp.person(i, 2), 'Org ' || i,
    CASE WHEN i < 4 THEN i || '/' ELSE (i % 3 + 1) || '/' || i || '/' END, pg_temp.one(i, 3, ARRAY[true, true, false, NULL])
    FROM generate_series(1, 12) i;
  INSERT INTO org_members SELECT DISTINCT ON (o, u) o, u, pg_temp.one(i, 13, ARRAY['owner', 'admin', 'member', 'guest', NULL]),
    pg_temp.one(i, 14, ARRAY[true, false, false, NULL]), pg_temp.moment(i, 15)
    FROM (SELECT i, 1 + pg_temp.dice(i, 11, 12) AS o, pg_temp.person(i, 12) AS u FROM generate_series(1, 40) i) x WHERE u IS NOT NULL;
  INSERT INTO teams SELECT i, pg_temp.one(i, 21, ARRAY[1, 2, 3, 4, 5, 6, NULL, 99]), 'Team ' || i FROM generate_series(1, 15) i;
  INSERT INTO team_members SELECT DISTINCT ON (t, u) t, u, pg_temp.one(i, 24, ARRAY['lead', 'member', NULL])
    FROM (SELECT i, 1 + pg_temp.dice(i, 22, 15) AS t, pg_temp.person(i, 23) AS u FROM generate_series(1, 35) i) x WHERE u IS NOT NULL;
  INSERT INTO projects SELECT i, pg_temp.one(i, 31, ARRAY[1, 2, 3, 4, NULL]), pg_temp.one(i, 32, ARRAY[1, 2, 3, 4, 5, 6, 7, NULL]),
    pg_temp.person(i, 33), pg_temp.one(i, 34, ARRAY['public', 'org', 'team', 'private', NULL]), pg_temp.moment(i, 35)
    FROM generate_series(1, 30) i;
  INSERT INTO tasks SELECT i, pg_temp.one(i, 41, array_append(ARRAY(SELECT generate_series(1, 30)), NULL)), pg_temp.person(i, 42),
    pg_temp.person(i, 43), 'Task ' || i, pg_temp.one(i, 44, ARRAY['open', 'done', 'draft', NULL]),
    pg_temp.one(i, 45, ARRAY[true, false, NULL]), pg_temp.dice(i, 46, 5), pg_temp.one(i, 47, ARRAY['red', 'blue', NULL]) || ARRAY['t' || i % 3],
    pg_temp.one(i, 48, ARRAY[NULL, NULL, now() - interval '2 days']), CURRENT_DATE + pg_temp.dice(i, 49, 9) - 4 FROM generate_series(1, 200) i;
  INSERT INTO comments SELECT i, pg_temp.one(i, 51, array_append(ARRAY(SELECT generate_series(1, 40)), NULL)), pg_temp.person(i, 52), 'Comment ' || i,
    pg_temp.one(i, 53, ARRAY[true, false, false, NULL]) FROM generate_series(1, 200) i;
  INSERT INTO profiles
    SELECT u::uuid, pg_temp.one(i::int, 61, ARRAY[1, 2, 3]), pg_temp.tenant(i::int, 62), (ARRAY['admin', 'member', 'support', NULL, 'member'])[i],
      (ARRAY['ada@acme.test', 'bob@acme.test', 'Cid@bolt.test', NULL, 'eve@ACME.test'])[i], (ARRAY[3, 2, 1, NULL, 0])[i], (ARRAY[false, false, true, NULL, false])[i]
    FROM unnest(ARRAY['${Object.values(people).join("', '")}']) WITH ORDINALITY AS x(u, i);
  INSERT INTO user_roles SELECT i, pg_temp.person(i, 64), r FROM unnest('{viewer,moderator,admin,viewer,admin}'::app_role[]) WITH ORDINALITY AS x(r, n),
    LATERAL (SELECT n::int * 3 AS i) y;
  INSERT INTO user_roles VALUES (100, '${people.ada}', 'moderator'), (101, '${people.bob}', 'viewer') ON CONFLICT DO NOTHING;
  INSERT INTO role_permissions VALUES (1, 'admin', 'documents.read'), (2, 'admin', 'tasks.read'), (3, 'moderator', 'tasks.read'),
    (4, 'moderator', 'posts.read'), (5, 'viewer', 'posts.read'), (6, NULL, 'documents.read');
  INSERT INTO invitations SELECT i, 1 + i % 12, pg_temp.one(i, 71, ARRAY['ada@acme.test', 'Ada@Acme.test', 'bob@acme.test', 'cid@bolt.test', 'nobody@else.test', NULL]),
    pg_temp.one(i, 72, ARRAY['pending', 'accepted', NULL]), pg_temp.moment(i, 73) FROM generate_series(1, 60) i;

  INSERT INTO documents SELECT ('20000000-0000-4000-8000-' || lpad(i::text, 12, '0'))::uuid, pg_temp.tenant(i, 81),
    pg_temp.one(i, 82, ARRAY[1, 2, 3, 4, 5, 6, NULL]), pg_temp.person(i, 83),
    CASE WHEN i > 60 THEN ('20000000-0000-4000-8000-' || lpad((i % 60)::text, 12, '0'))::uuid END, 'Document ' || i,
    pg_temp.one(i, 84, ARRAY[true, false, false, NULL]), pg_temp.one(i, 85, ARRAY['eu', 'us', 'EU', 'global', NULL]), pg_temp.one(i, 86, ARRAY[0, 1, 2, 3, 4, NULL]),
    CASE pg_temp.dice(i, 87, 4) WHEN 0 THEN NULL WHEN 1 THEN '{}' ELSE ARRAY[pg_temp.person(i, 88), pg_temp.person(i, 89)] END,
    CASE pg_temp.dice(i, 90, 5) WHEN 0 THEN NULL WHEN 1 THEN '[]'::jsonb WHEN 2 THEN '{"owner": null}'
      ELSE jsonb_build_object('owner', pg_temp.person(i, 91), 'readers', jsonb_build_array(pg_temp.person(i, 92), pg_temp.person(i, 93)),
        'draft', pg_temp.dice(i, 94, 2) = 1) END,
    pg_temp.moment(i, 95), pg_temp.moment(i, 96), pg_temp.moment(i, 97), pg_temp.one(i, 98, ARRAY[NULL, NULL, now() - interval '1 day'])
    FROM generate_series(1, 200) i;
  INSERT INTO document_shares SELECT DISTINCT ON (d, u) d, u, pg_temp.one(i, 103, ARRAY['view', 'edit', 'none', NULL]), pg_temp.moment(i, 104)
    FROM (SELECT i, ('20000000-0000-4000-8000-' || lpad((1 + pg_temp.dice(i, 101, 200))::text, 12, '0'))::uuid AS d, pg_temp.person(i, 102) AS u
      FROM generate_series(1, 160) i) x WHERE u IS NOT NULL;
  INSERT INTO posts SELECT i, pg_temp.person(i, 111), pg_temp.one(i, 112, ARRAY['public', 'followers', 'private', 'org', NULL]),
    pg_temp.one(i, 113, ARRAY[1, 2, 3, 4, NULL]), 'Post ' || i, pg_temp.moment(i, 114) FROM generate_series(1, 200) i;
  INSERT INTO follows SELECT DISTINCT a, b FROM (SELECT pg_temp.person(i, 115) AS a, pg_temp.person(i, 116) AS b FROM generate_series(1, 12) i) x
    WHERE a IS NOT NULL AND b IS NOT NULL;
  INSERT INTO blocks VALUES ('${people.ada}', '${people.cid}'), ('${people.bob}', '${people.ada}'), ('${people.dan}', '${people.eve}');
  INSERT INTO bans SELECT i, pg_temp.one(i, 121, ARRAY[1, 2, 3, 4, 5, NULL]), pg_temp.person(i, 122), pg_temp.moment(i, 123) FROM generate_series(1, 10) i;

  INSERT INTO storage.buckets VALUES ('avatars', 'avatars', true), ('private', 'private', false), ('team', 'team', NULL);
  INSERT INTO storage.objects SELECT ('30000000-0000-4000-8000-' || lpad(i::text, 12, '0'))::uuid, pg_temp.one(i, 131, ARRAY['avatars', 'private', 'team', 'gone', NULL]),
    CASE pg_temp.dice(i, 132, 5) WHEN 0 THEN coalesce(pg_temp.person(i, 133)::text, '') || '/cat.png' WHEN 1 THEN 'private/' || pg_temp.dice(i, 134, 9) || '/x.jpg'
      WHEN 2 THEN pg_temp.dice(i, 135, 9) || '/plan.pdf' WHEN 3 THEN 'top.txt' END,
    pg_temp.person(i, 136), pg_temp.person(i, 137)::text, CASE WHEN i % 3 = 0 THEN '{"mimetype": "image/png"}'::jsonb END FROM generate_series(1, 150) i;
  INSERT INTO mfa_factors VALUES (1, '${people.ada}', 'verified'), (2, '${people.bob}', 'verified'), (3, '${people.cid}', 'unverified');
  INSERT INTO rooms SELECT i, 'room:' || i, pg_temp.one(i, 141, ARRAY[true, false, NULL]) FROM generate_series(1, 12) i;
  INSERT INTO room_members SELECT DISTINCT ON (r, u) r, u, 'room:' || r, pg_temp.one(i, 144, ARRAY['owner', 'member', NULL]), pg_temp.one(i, 145, ARRAY[true, false, NULL])
    FROM (SELECT i, 1 + pg_temp.dice(i, 142, 12) AS r, pg_temp.person(i, 143) AS u FROM generate_series(1, 30) i) x WHERE u IS NOT NULL;
  INSERT INTO room_members VALUES (1, '${people.ada}', 'room:1', 'owner', false) ON CONFLICT DO NOTHING;
  INSERT INTO messages SELECT i, pg_temp.one(i, 151, ARRAY[1, 2, 3, 4, 5, 6, 7, 8, NULL]), pg_temp.person(i, 152), 'Message ' || i, pg_temp.moment(i, 153)
    FROM generate_series(1, 200) i;
  INSERT INTO broadcasts.messages SELECT i, pg_temp.one(i, 161, ARRAY['room:1', 'room:2', 'Room:1', 'user:${people.ada}', 'lobby', 'room:', '', NULL]),
    pg_temp.one(i, 162, ARRAY['broadcast', 'presence', 'postgres_changes', NULL]), 'event', pg_temp.one(i, 163, ARRAY[true, false, NULL]) FROM generate_series(1, 120) i;
`

export const tables = [
  ...['orgs', 'org_members', 'teams', 'team_members', 'projects', 'tasks', 'comments', 'profiles', 'user_roles'],
  ...[
    'role_permissions',
    'invitations',
    'documents',
    'document_shares',
    'posts',
    'follows',
    'blocks',
    'bans',
    'mfa_factors',
  ],
  ...['rooms', 'room_members', 'messages', 'storage.buckets', 'storage.objects', 'broadcasts.messages'],
].map(name => (name.includes('.') ? name : `public.${name}`))

export const schema = [
  workspace,
  library,
  supabase,
  dice,
  rows,
  ...tables.map(table => `ALTER TABLE ${table} ENABLE ROW LEVEL SECURITY;`),
].join('\n')
