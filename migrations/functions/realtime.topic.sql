-- The topic that policies on realtime.messages are asked about. A setting that was set and reset within a session reads as an
-- empty text, which is no topic.
CREATE OR REPLACE FUNCTION realtime.topic() RETURNS text LANGUAGE sql STABLE AS $function$
  SELECT nullif(pg_catalog.current_setting('realtime.topic', true), '')
$function$;
