-- Ends connections now, wherever they are; with a topic only their places in that channel, and with a topic alone everybody's.
-- A kick is momentary: who comes back is let in. Nobody but the owner may call it until EXECUTE is granted.
CREATE OR REPLACE FUNCTION tidegate.kick(
  sub text DEFAULT NULL,
  connection text DEFAULT NULL,
  topic text DEFAULT NULL,
  jti text DEFAULT NULL,
  retry_after interval DEFAULT NULL,
  reason text DEFAULT NULL
) RETURNS tidegate.orders LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $function$
  INSERT INTO tidegate.orders (kind, sub, connection, topic, jti, retry_after_ms, reason, until)
  VALUES ('kick', kick.sub, kick.connection, kick.topic, kick.jti,
    (extract(epoch FROM kick.retry_after) * 1000)::integer, kick.reason, clock_timestamp() + interval '1 minute')
  RETURNING *
$function$;
REVOKE ALL ON FUNCTION tidegate.kick(text, text, text, text, interval, text) FROM PUBLIC;
