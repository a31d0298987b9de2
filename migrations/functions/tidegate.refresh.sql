-- Asks a user's sessions for a token issued after now, and ends those that have not presented one in time; tokens issued before
-- are refused from then on, until the given time. Nobody but the owner may call it until EXECUTE is granted.
CREATE OR REPLACE FUNCTION tidegate.refresh(
  sub text,
  within interval DEFAULT '10 seconds',
  until timestamptz DEFAULT NULL,
  reason text DEFAULT NULL
) RETURNS tidegate.orders LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $function$
  INSERT INTO tidegate.orders (kind, sub, within_ms, reason, until)
  VALUES ('refresh', refresh.sub, (extract(epoch FROM refresh.within) * 1000)::integer, refresh.reason,
    coalesce(refresh.until, clock_timestamp() + interval '1 hour'))
  RETURNING *
$function$;
REVOKE ALL ON FUNCTION tidegate.refresh(text, interval, timestamptz, text) FROM PUBLIC;
