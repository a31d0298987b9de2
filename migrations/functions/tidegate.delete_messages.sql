-- Deletes up to 1,000 messages that every node has had from the WAL long since, in the order of the primary key, beginning after
-- (after_time, after_id); gives how many, and the last. Beginning there, and not at the front again, spares the dead entries
-- of the index, which stay for as long as somebody's transaction is open. Then those of a time to come, which somebody made up.
-- Only of a table that `migrate` made: another one has its own janitor.
--
-- What the planner knows of a table that fills and empties is old: left to itself it read and sorted 150,000 rows for each batch
-- of 1,000, and took 24 s in all. By the index, and then by ctid, which a locked row keeps, it takes 2.4 s.
CREATE OR REPLACE FUNCTION tidegate.delete_messages(after_time timestamptz, after_id uuid)
RETURNS TABLE (deleted integer, last_time timestamptz, last_id uuid)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET row_security = off
SET enable_seqscan = off SET enable_bitmapscan = off AS $function$
DECLARE
  age record;
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'realtime' AND c.relname = 'messages' AND c.relkind = 'r'
      AND obj_description(c.oid, 'pg_class') = 'Made by tidegate migrate: messages on their way into the WAL.'
  ) THEN
    RETURN;
  END IF;
  -- One range of the index after the other: a scan over both would read all that lies between.
  FOR age IN
    SELECT '-infinity'::timestamptz AS since, now() - interval '10 minutes' AS until
    UNION ALL SELECT now() + interval '10 minutes', 'infinity'
  LOOP
    RETURN QUERY
    WITH gone AS (
      DELETE FROM realtime.messages WHERE ctid = ANY (ARRAY(
        SELECT m.ctid FROM realtime.messages m
        WHERE (m.inserted_at, m.id) > (after_time, after_id) AND m.inserted_at >= age.since AND m.inserted_at <= age.until
        ORDER BY m.inserted_at, m.id LIMIT 1000 FOR UPDATE SKIP LOCKED
      ))
      RETURNING inserted_at, id
    )
    SELECT (count(*) OVER ())::integer, gone.inserted_at, gone.id FROM gone
    ORDER BY gone.inserted_at DESC, gone.id DESC LIMIT 1;
    IF FOUND THEN
      RETURN;
    END IF;
  END LOOP;
END
$function$;
REVOKE ALL ON FUNCTION tidegate.delete_messages(timestamptz, uuid) FROM PUBLIC;
