-- Runs at the end of the application's CREATE TABLE, ALTER TABLE and DROP INDEX, where an event trigger may be made.
-- Postgres refuses UPDATE and DELETE on a published table whose replica identity is none, and three migrations lead there:
-- a partition added (it starts with DEFAULT) and the primary key dropped; an identity's index dropped; from 18 on, a
-- virtual generated column under FULL. The first two get FULL. For the last nothing helps, so the table leaves the
-- publication: its changes stop, the application goes on. Whatever fails here must not fail the migration.
CREATE OR REPLACE FUNCTION tidegate.keep_writable() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET lock_timeout = '2s' AS $function$
DECLARE
  found record;
BEGIN
  IF tg_tag <> 'DROP INDEX' AND NOT EXISTS (
    SELECT FROM pg_event_trigger_ddl_commands() d
    JOIN tidegate.tracked t ON t.relation = coalesce(pg_partition_root(d.objid)::oid, d.objid)
    WHERE d.classid = 'pg_class'::regclass
  ) THEN
    RETURN;
  END IF;
  FOR found IN
    SELECT c.oid::regclass AS relation, t.relation AS root, t.publication, v.is_virtual
    FROM tidegate.tracked t
    JOIN pg_publication p ON p.pubname = t.publication
    JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = t.relation
    CROSS JOIN LATERAL (
      SELECT t.relation::oid AS relid UNION SELECT relid FROM pg_partition_tree(t.relation)
    ) AS tree
    JOIN pg_class c ON c.oid = tree.relid
    CROSS JOIN LATERAL (
      SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attgenerated = 'v' AND NOT attisdropped) AS is_virtual
    ) AS v
    WHERE CASE c.relreplident
      WHEN 'f' THEN v.is_virtual
      WHEN 'i' THEN NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisreplident)
      WHEN 'd' THEN c.oid <> t.relation
        OR NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary AND indimmediate)
      ELSE true
    END
  LOOP
    IF found.is_virtual THEN
      EXECUTE format('ALTER PUBLICATION %I DROP TABLE %s', found.publication, found.root);
      RAISE WARNING USING MESSAGE = format(
        'tidegate does not follow %s any more: Postgres refuses to update a published table with a virtual generated column; make the column STORED, then run: tidegate track %s',
        found.root, found.root);
      -- One partition is enough, and the publication has the table only once.
      EXIT;
    END IF;
    INSERT INTO tidegate.identity_before (relation, root, identity, identity_index)
    SELECT oid, found.root, relreplident, NULL FROM pg_class WHERE oid = found.relation
    ON CONFLICT (relation) DO NOTHING;
    EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', found.relation);
  END LOOP;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'tidegate could not keep the replica identity: %; run: tidegate track', SQLERRM;
END
$function$;
