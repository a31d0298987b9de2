-- Deletes up to 1,000 messages that every node has had from the WAL long since, in the order of the primary key, beginning after
-- (after_time, after_id); gives how many, and the last. Beginning there, and not at the front again, spares the dead entries
-- of the index, which stay for as long as somebody's transaction is open. Rows of a time to come were not stamped by us, and go
-- too. Only of a table that `migrate` made: another one has its own janitor.
CREATE OR REPLACE FUNCTION tidegate.delete_messages(after_time timestamptz, after_id uuid)
RETURNS TABLE (deleted integer, last_time timestamptz, last_id uuid)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET row_security = off AS $function$
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'realtime' AND c.relname = 'messages' AND c.relkind = 'r'
      AND obj_description(c.oid, 'pg_class') = 'Made by tidegate migrate: messages on their way into the WAL.'
  ) THEN
    RETURN;
  END IF;
  RETURN QUERY
  WITH old AS (
    SELECT m.inserted_at, m.id FROM realtime.messages m
    WHERE (m.inserted_at, m.id) > (after_time, after_id)
      AND (m.inserted_at < now() - interval '10 minutes' OR m.inserted_at > now() + interval '10 minutes')
    ORDER BY m.inserted_at, m.id LIMIT 1000 FOR UPDATE SKIP LOCKED
  ), gone AS (
    DELETE FROM realtime.messages m USING old WHERE (m.inserted_at, m.id) = (old.inserted_at, old.id)
    RETURNING m.inserted_at, m.id
  )
  SELECT (count(*) OVER ())::integer, gone.inserted_at, gone.id FROM gone
  ORDER BY gone.inserted_at DESC, gone.id DESC LIMIT 1;
END
$function$;
REVOKE ALL ON FUNCTION tidegate.delete_messages(timestamptz, uuid) FROM PUBLIC;
