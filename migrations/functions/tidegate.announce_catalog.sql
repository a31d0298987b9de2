-- Runs at the end of a command that may change who may read what, where an event trigger may be made. Writes a message into
-- the WAL, which comes through the stream with the commit of the change: what commits after it, and the rows of that very
-- transaction, are judged by the new rules. Says nothing of what changed: the server compares. Whatever fails here must not
-- fail the migration.
CREATE OR REPLACE FUNCTION tidegate.announce_catalog() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $function$
DECLARE
  by_rule boolean;
  matters boolean;
  signed bytea;
  secret bytea;
BEGIN
  -- A publication of all tables, or of all of a schema, names none.
  SELECT EXISTS (SELECT FROM pg_publication WHERE puballtables) INTO by_rule;
  IF NOT by_rule AND current_setting('server_version_num')::int >= 150000 THEN
    SELECT EXISTS (SELECT FROM pg_publication_namespace) INTO by_rule;
  END IF;
  IF tg_event = 'sql_drop' THEN
    SELECT EXISTS (
      SELECT FROM pg_event_trigger_dropped_objects() d
      WHERE NOT d.is_temporary AND CASE
        WHEN d.object_type = 'table' THEN by_rule
        -- Each table that is dropped takes types of its own with it.
        WHEN d.object_type IN ('type', 'domain', 'schema') THEN d.original
        ELSE d.object_type IN ('policy', 'function', 'publication', 'publication relation', 'publication namespace')
      END
    ) INTO matters;
  ELSE
    -- Of GRANT and REVOKE Postgres says neither class nor object; of DROP OWNED nothing.
    SELECT tg_tag = 'DROP OWNED' OR EXISTS (
      SELECT FROM pg_event_trigger_ddl_commands() d
      LEFT JOIN pg_policy p ON d.classid = 'pg_policy'::regclass AND p.oid = d.objid
      WHERE coalesce(d.schema_name, '') <> 'pg_temp' AND CASE
        WHEN by_rule THEN true
        WHEN d.classid IN ('pg_class'::regclass, 'pg_policy'::regclass) THEN EXISTS (
          SELECT FROM pg_publication_rel r WHERE r.prrelid = coalesce(p.polrelid, d.objid)
            OR r.prrelid IN (SELECT a.relid FROM pg_partition_ancestors(coalesce(p.polrelid, d.objid)) a))
        ELSE true
      END
    ) INTO matters;
  END IF;
  IF NOT matters THEN
    RETURN;
  END IF;
  SELECT key INTO STRICT secret FROM tidegate.catalog_key;
  -- The transaction is part of what is signed: a copy of the message in another one is worth nothing.
  signed := convert_to('catalog ' || (pg_current_xact_id()::text::bigint & 4294967295), 'UTF8');
  PERFORM pg_logical_emit_message(true, 'tidegate catalog', encode(sha256(secret || sha256(secret || signed)), 'hex'));
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'tidegate could not announce this change, and notices it within two seconds: %', SQLERRM;
END
$function$;
