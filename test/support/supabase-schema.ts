// Makes a database look as a self-hosted Supabase leaves it (its Realtime of August 2026): the roles, the schema auth, the schema
// realtime with its partitioned messages, its subscriptions and its functions, and both publications. In words of our own; shapes,
// owners, grants and what a caller notices are theirs.
import type { TestDatabase } from './postgres.ts'

export interface SupabaseLogin {
  readonly name: string
  readonly password: string
}

export interface SupabaseSchemaOptions {
  /** Made as their `postgres`: owns the database and the publication supabase_realtime, may make roles, is no superuser. */
  readonly login?: SupabaseLogin
  /** Their Realtime from July 2026 on: that login is not a member of supabase_realtime_admin, and makes nothing in the schema
   *  realtime. Default false. */
  readonly isRestricted?: boolean
  /** Days from today, UTC, that have a partition: [first, last]. Their janitor keeps [-1, 3], which is the default. */
  readonly partitions?: readonly [number, number]
}

/** Roles belong to the whole cluster, and stay. */
export async function makeSupabase(database: TestDatabase, options: SupabaseSchemaOptions = {}): Promise<void> {
  const { login, isRestricted = false, partitions = [-1, 3] } = options
  await database.query(supabaseRoles)
  await database.query(supabaseSchema)
  await makePartitions(database, ...partitions)
  if (login !== undefined) await database.query(loginSql(database.name, login, isRestricted))
}

/** As their janitor does. @param first days from today, UTC @param last the same */
export async function makePartitions(database: TestDatabase, first: number, last: number): Promise<void> {
  await database.query(`DO $$
    DECLARE
      today date := (now() AT TIME ZONE 'UTC')::date;
    BEGIN
      FOR day IN ${first} .. ${last} LOOP
        EXECUTE format('CREATE TABLE IF NOT EXISTS realtime.%I PARTITION OF realtime.messages FOR VALUES FROM (%L) TO (%L)',
          to_char(today + day, '"messages_"YYYY_MM_DD'), today + day, today + day + 1);
        EXECUTE format('ALTER TABLE realtime.%I OWNER TO supabase_realtime_admin', to_char(today + day, '"messages_"YYYY_MM_DD'));
      END LOOP;
    END $$`)
}

const role = (name: string, attributes: string): string => `
  IF to_regrole('${name}') IS NULL THEN
    BEGIN
      CREATE ROLE ${name} NOLOGIN ${attributes};
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;
    END;
  END IF;`

/** Each only where it is missing: files of tests share a cluster. */
export const supabaseRoles = `DO $$ BEGIN
  ${role('anon', 'NOINHERIT')}
  ${role('authenticated', 'NOINHERIT')}
  ${role('service_role', 'NOINHERIT BYPASSRLS')}
  ${role('supabase_admin', 'SUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS')}
  ${role('supabase_auth_admin', 'NOINHERIT CREATEROLE')}
  ${role('supabase_realtime_admin', 'NOINHERIT')}
END $$`

const callers = 'anon, authenticated, service_role'

const auth = `
  CREATE SCHEMA auth AUTHORIZATION supabase_admin;
  GRANT USAGE ON SCHEMA auth TO ${callers};
  GRANT ALL ON SCHEMA auth TO supabase_auth_admin;
  CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS $f$
    SELECT coalesce(nullif(current_setting('request.jwt.claim', true), ''), nullif(current_setting('request.jwt.claims', true), ''))::jsonb $f$;
  CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $f$
    SELECT coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''),
      nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid $f$;
  CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS $f$
    SELECT coalesce(nullif(current_setting('request.jwt.claim.role', true), ''),
      nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role')::text $f$;
  ALTER FUNCTION auth.jwt() OWNER TO supabase_auth_admin;
  ALTER FUNCTION auth.uid() OWNER TO supabase_auth_admin;
  ALTER FUNCTION auth.role() OWNER TO supabase_auth_admin;`

const types = `
  CREATE TYPE realtime.action AS ENUM ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'ERROR');
  CREATE TYPE realtime.equality_op AS ENUM ('eq', 'neq', 'lt', 'lte', 'gt', 'gte', 'in', 'like', 'ilike', 'is', 'match', 'imatch', 'isdistinct');
  CREATE TYPE realtime.user_defined_filter AS (column_name text, op realtime.equality_op, value text, negate boolean);
  ALTER TYPE realtime.action OWNER TO supabase_realtime_admin;
  ALTER TYPE realtime.equality_op OWNER TO supabase_realtime_admin;
  ALTER TYPE realtime.user_defined_filter OWNER TO supabase_realtime_admin;`

// The check on the payload is NOT VALID, the index is on the parent only: both as an upgraded installation has them.
const messages = `
  CREATE TABLE realtime.messages (
    topic text NOT NULL,
    extension text NOT NULL,
    payload jsonb,
    event text,
    private boolean DEFAULT false,
    updated_at timestamp NOT NULL DEFAULT now(),
    inserted_at timestamp NOT NULL DEFAULT now(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    binary_payload bytea,
    CONSTRAINT messages_pkey PRIMARY KEY (id, inserted_at)
  ) PARTITION BY RANGE (inserted_at);
  ALTER TABLE realtime.messages ADD CONSTRAINT messages_payload_exclusive CHECK (payload IS NULL OR binary_payload IS NULL) NOT VALID;
  CREATE INDEX messages_inserted_at_topic_index ON ONLY realtime.messages (inserted_at DESC, topic) WHERE extension = 'broadcast' AND private IS TRUE;
  ALTER TABLE realtime.messages ENABLE ROW LEVEL SECURITY;
  GRANT INSERT, SELECT, UPDATE ON realtime.messages TO ${callers};
  ALTER TABLE realtime.messages OWNER TO supabase_realtime_admin;`

const subscription = `
  CREATE FUNCTION realtime.to_regrole(role_name text) RETURNS regrole LANGUAGE sql IMMUTABLE AS $f$ SELECT role_name::regrole $f$;
  CREATE TABLE realtime.subscription (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_subscription PRIMARY KEY,
    subscription_id uuid NOT NULL,
    entity regclass NOT NULL,
    filters realtime.user_defined_filter[] NOT NULL DEFAULT '{}',
    claims jsonb NOT NULL,
    claims_role regrole NOT NULL GENERATED ALWAYS AS (realtime.to_regrole(claims ->> 'role')) STORED,
    created_at timestamp NOT NULL DEFAULT timezone('utc', now()),
    action_filter text DEFAULT '*' CHECK (action_filter IN ('*', 'INSERT', 'UPDATE', 'DELETE')),
    selected_columns text[]
  );
  CREATE INDEX ix_realtime_subscription_entity ON realtime.subscription (entity);
  GRANT SELECT ON realtime.subscription TO ${callers};
  ALTER FUNCTION realtime.to_regrole(text) OWNER TO supabase_realtime_admin;
  ALTER TABLE realtime.subscription OWNER TO supabase_realtime_admin;
  CREATE TABLE realtime.schema_migrations (version bigint PRIMARY KEY, inserted_at timestamp(0));
  ALTER TABLE realtime.schema_migrations OWNER TO supabase_admin;
  INSERT INTO realtime.schema_migrations VALUES (20260709120000, '2026-07-09');`

/** What fails in it is a warning of the session that nobody reads, and the message is lost. */
const sender = (name: string, type: string, body: string): string => `
  CREATE FUNCTION realtime.${name}(payload ${type}, event text, topic text, private boolean DEFAULT true) RETURNS void LANGUAGE plpgsql AS $f$
  DECLARE
    message uuid := gen_random_uuid();
  BEGIN
    PERFORM set_config('realtime.topic', topic, true);
    ${body}
  EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'WarnSendingBroadcastMessage: %', SQLERRM;
  END $f$;
  ALTER FUNCTION realtime.${name}(${type}, text, text, boolean) OWNER TO supabase_realtime_admin;`

const functions = `
  CREATE FUNCTION realtime.topic() RETURNS text LANGUAGE sql STABLE AS $f$ SELECT nullif(current_setting('realtime.topic', true), '')::text $f$;
  ALTER FUNCTION realtime.topic() OWNER TO supabase_realtime_admin;
  ${sender(
    'send',
    'jsonb',
    `INSERT INTO realtime.messages (id, payload, event, topic, private, extension)
    VALUES (message, CASE WHEN payload ? 'id' THEN payload ELSE jsonb_set(payload, '{id}', to_jsonb(message)) END, event, topic, private, 'broadcast');`,
  )}
  ${sender(
    'send_binary',
    'bytea',
    `INSERT INTO realtime.messages (id, binary_payload, event, topic, private, extension)
    VALUES (message, payload, event, topic, private, 'broadcast');`,
  )}
  CREATE FUNCTION realtime.broadcast_changes(topic_name text, event_name text, operation text, table_name text, table_schema text,
    new record, old record, level text DEFAULT 'ROW') RETURNS void LANGUAGE plpgsql AS $f$
  BEGIN
    IF level = 'STATEMENT' THEN
      RAISE EXCEPTION 'a statement has no row to send';
    ELSIF operation NOT IN ('INSERT', 'UPDATE', 'DELETE') THEN
      RAISE EXCEPTION 'no such operation: %', operation;
    END IF;
    PERFORM realtime.send(jsonb_build_object('old_record', old, 'record', new, 'operation', operation, 'table', table_name,
      'schema', table_schema), event_name, topic_name);
  EXCEPTION WHEN OTHERS THEN
    RAISE EXCEPTION 'Failed to process the row: %', SQLERRM;
  END $f$;
  ALTER FUNCTION realtime.broadcast_changes(text, text, text, text, text, record, record, text) OWNER TO supabase_realtime_admin;`

/** Everything but roles and partitions. */
export const supabaseSchema = `
  ${auth}
  CREATE SCHEMA realtime AUTHORIZATION supabase_admin;
  GRANT USAGE ON SCHEMA realtime TO ${callers};
  GRANT USAGE, CREATE ON SCHEMA realtime TO supabase_realtime_admin WITH GRANT OPTION;
  ${types}
  ${messages}
  ${subscription}
  ${functions}
  GRANT USAGE ON SCHEMA public TO ${callers};
  CREATE PUBLICATION supabase_realtime;
  CREATE PUBLICATION supabase_realtime_messages_publication FOR TABLE realtime.messages;
  ALTER PUBLICATION supabase_realtime_messages_publication OWNER TO supabase_admin;`

const loginSql = (database: string, { name, password }: SupabaseLogin, isRestricted: boolean): string => `
  CREATE ROLE ${name} LOGIN NOSUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS PASSWORD '${password}';
  GRANT ${callers} TO ${name} WITH ADMIN OPTION;
  ALTER DATABASE ${database} OWNER TO ${name};
  ALTER PUBLICATION supabase_realtime OWNER TO ${name};
  GRANT ALL ON SCHEMA auth, public TO ${name};
  GRANT USAGE ON SCHEMA realtime TO ${name} WITH GRANT OPTION;
  GRANT SELECT ON realtime.subscription TO ${name};
  GRANT SELECT, INSERT, UPDATE ON realtime.messages TO ${name};
  ${isRestricted ? '' : `GRANT CREATE ON SCHEMA realtime TO ${name}; GRANT supabase_realtime_admin TO ${name};`}`
