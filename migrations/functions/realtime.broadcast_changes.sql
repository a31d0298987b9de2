-- For triggers FOR EACH ROW: sends the row before and after to a private channel, with the commit of the change.
CREATE OR REPLACE FUNCTION realtime.broadcast_changes(topic_name text, event_name text, operation text, table_name text,
  table_schema text, new record, old record, level text DEFAULT 'ROW')
RETURNS void LANGUAGE plpgsql AS $function$
BEGIN
  IF level = 'STATEMENT' THEN
    RAISE EXCEPTION 'realtime.broadcast_changes: a trigger FOR EACH STATEMENT has no rows to send; make it FOR EACH ROW'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF operation IS NULL OR operation NOT IN ('INSERT', 'UPDATE', 'DELETE') THEN
    RAISE EXCEPTION 'realtime.broadcast_changes: the operation is %, and must be INSERT, UPDATE or DELETE',
      coalesce(operation, 'NULL') USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM realtime.send(
    pg_catalog.jsonb_build_object('old_record', old, 'record', new, 'operation', operation, 'table', table_name,
      'schema', table_schema),
    event_name, topic_name);
END
$function$;
