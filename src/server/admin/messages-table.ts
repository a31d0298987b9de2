// What `migrate` makes for channels: the table realtime.messages, on which policies say who may receive and send, and the functions
// that send from SQL, both as Supabase has them. Where there is a schema `realtime` already, only what is missing is made, as far
// as the administrator may.
import { ensureFunction, ensureUsage, remember } from './ensure.ts'
import type { InstalledFunction } from './migrations.ts'
import { block, identifier, literal } from './script.ts'

export interface MessagesInstallation {
  readonly publication: string
  /** Those that a token may name: granted to, as far as they exist. */
  readonly memberRoles: readonly string[]
  /** Of the schema `realtime`. */
  readonly functions: readonly InstalledFunction[]
}

/** Tells our table from another's, after a dump too: see migrations/functions/tidegate.delete_messages.sql. */
const comment = 'Made by tidegate migrate: messages on their way into the WAL.'

export const messagesStatements = ({ publication, memberRoles, functions }: MessagesInstallation): string[] => [
  ensureSchema,
  ensureTable,
  ...functions.map(ensureSender),
  ...memberRoles.map(ensureMember),
  ensurePublished(publication),
]

const ensureSchema = block(`  IF to_regnamespace('realtime') IS NULL THEN
    CREATE SCHEMA realtime;
    ${remember('schema', 'realtime')}
  END IF;`)

// By pg_class, not by to_regclass: that wants USAGE on the schema.
const table = `(SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'realtime' AND c.relname = 'messages')`

const isOurs = `EXISTS (SELECT FROM tidegate.installed WHERE kind = 'table' AND name = 'realtime.messages')`

// The primary key begins with the time: new rows go to the end of one index, which deleting old ones reads from its front.
const ensureTable = block(`  IF ${table} IS NULL THEN
    CREATE TABLE realtime.messages (
      topic text NOT NULL,
      extension text NOT NULL,
      payload jsonb,
      event text,
      private boolean NOT NULL DEFAULT true,
      updated_at timestamptz NOT NULL DEFAULT now(),
      inserted_at timestamptz NOT NULL DEFAULT now(),
      id uuid NOT NULL DEFAULT gen_random_uuid(),
      binary_payload bytea,
      PRIMARY KEY (inserted_at, id)
    );
    COMMENT ON TABLE realtime.messages IS ${literal(comment)};
    ALTER TABLE realtime.messages ENABLE ROW LEVEL SECURITY;
    ${remember('table', 'realtime.messages')}
  END IF;`)

/** Into a schema of somebody else only as far as one may, and nothing that its table does not fit. */
function ensureSender(each: InstalledFunction): string {
  const needed = each.signature.startsWith('realtime.send_binary') ? 'binary_payload' : 'topic'
  return block(`  IF ${isOurs} THEN
    ${ensureFunction(each)};
  ELSIF EXISTS (SELECT FROM pg_attribute WHERE attrelid = ${table} AND attname = '${needed}') THEN
    BEGIN
      ${ensureFunction(each)};
    EXCEPTION WHEN insufficient_privilege THEN
      RAISE WARNING USING MESSAGE = ${literal(`${each.signature} was not made: `)} || SQLERRM;
    END;
  END IF;`)
}

// What another's table grants is for its maker.
const ensureMember = (role: string): string =>
  block(`  IF ${isOurs} AND to_regrole(${literal(identifier(role))}) IS NOT NULL THEN
    ${ensureUsage('realtime', role)};
    IF NOT has_table_privilege(${literal(role)}, 'realtime.messages', 'SELECT')
      OR NOT has_table_privilege(${literal(role)}, 'realtime.messages', 'INSERT') THEN
      GRANT SELECT, INSERT ON realtime.messages TO ${identifier(role)};
    END IF;
  END IF;`)

// Publishing another's table must not take UPDATE and DELETE from its maker, for which a published table needs a replica identity.
const ensurePublished = (publication: string): string =>
  block(
    `  messages := ${table};
  IF EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
    WHERE p.pubname = ${literal(publication)} AND r.prrelid = messages) THEN
    RETURN;
  END IF;
  IF NOT ${isOurs} THEN
    SELECT CASE
      WHEN (SELECT count(*) FROM pg_attribute WHERE attrelid = messages AND NOT attisdropped
        AND (attname, atttypid) IN (('id', 'uuid'::regtype), ('topic', 'text'::regtype), ('extension', 'text'::regtype),
          ('event', 'text'::regtype), ('payload', 'jsonb'::regtype), ('private', 'boolean'::regtype))) < 6
        THEN 'it has other columns than messages of channels have'
      WHEN EXISTS (SELECT FROM pg_class c WHERE (c.oid = messages OR c.oid IN (SELECT relid FROM pg_partition_tree(messages)))
        AND CASE c.relreplident WHEN 'f' THEN false
          WHEN 'd' THEN NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)
          WHEN 'i' THEN NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisreplident) ELSE true END)
        THEN 'it, or a partition of it, has no replica identity'
    END INTO reason;
  END IF;
  IF reason IS NULL THEN
    BEGIN
      ALTER PUBLICATION ${identifier(publication)} ADD TABLE realtime.messages;
      RETURN;
    EXCEPTION WHEN insufficient_privilege OR invalid_parameter_value THEN
      IF ${isOurs} THEN
        RAISE;
      END IF;
      reason := SQLERRM;
    END;
  END IF;
  RAISE WARNING USING MESSAGE = ${literal('messages sent from SQL will not arrive, because realtime.messages is not in the publication: ')} || reason
    || ${literal(`; once that is mended, a superuser, or who may act as the owners of both, runs: ALTER PUBLICATION ${identifier(publication)} ADD TABLE realtime.messages`)};`,
    '  messages oid;\n  reason text;',
  )
