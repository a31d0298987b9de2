-- Of a realtime.messages that was adopted from a Supabase, whose own janitor is gone: makes the partitions of yesterday to three days
-- ahead that are missing, by days of UTC and with the owner of the table, and drops those more than three days old, as the janitor did.
-- A partition is made apart and attached, which lets others read and write the table meanwhile.
CREATE OR REPLACE FUNCTION tidegate.keep_partitions() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = '' SET timezone = 'UTC' AS $function$
DECLARE
  messages pg_catalog.pg_class;
  day date;
  partition_name text;
BEGIN
  SELECT c.* INTO messages FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = 'realtime' AND c.relname = 'messages' AND c.relkind = 'p'
    AND EXISTS (SELECT FROM tidegate.installed WHERE kind = 'adopted' AND name = 'realtime.messages');
  IF NOT FOUND THEN
    RETURN;
  END IF;
  FOR day IN SELECT current_date + n FROM pg_catalog.generate_series(-1, 3) AS n LOOP
    partition_name := pg_catalog.to_char(day, '"messages_"YYYY_MM_DD');
    CONTINUE WHEN EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = messages.relnamespace AND relname = partition_name);
    BEGIN
      EXECUTE pg_catalog.format('CREATE TABLE realtime.%I (LIKE realtime.messages INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition_name);
      EXECUTE pg_catalog.format('ALTER TABLE realtime.%I OWNER TO %s', partition_name, messages.relowner::pg_catalog.regrole);
      EXECUTE pg_catalog.format('ALTER TABLE realtime.messages ATTACH PARTITION realtime.%I FOR VALUES FROM (%L) TO (%L)',
        partition_name, day, day + 1);
    EXCEPTION WHEN invalid_object_definition OR check_violation THEN
      -- Another partition has that day already.
      NULL;
    END;
  END LOOP;
  FOR partition_name IN
    SELECT c.relname FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = messages.oid AND c.relnamespace = messages.relnamespace AND c.relname ~ '^messages_\d{4}_\d\d_\d\d$'
      AND c.relname < pg_catalog.to_char(current_date - 3, '"messages_"YYYY_MM_DD')
  LOOP
    EXECUTE pg_catalog.format('DROP TABLE realtime.%I', partition_name);
  END LOOP;
END
$function$;
REVOKE ALL ON FUNCTION tidegate.keep_partitions() FROM PUBLIC;
