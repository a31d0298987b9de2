-- Refuses tokens everywhere until the given time, and ends what was opened with them: one token by its jti, or all that a user
-- was issued up to now. Nobody but the owner may call it until EXECUTE is granted.
CREATE OR REPLACE FUNCTION tidegate.revoke(
  sub text DEFAULT NULL,
  jti text DEFAULT NULL,
  until timestamptz DEFAULT NULL,
  reason text DEFAULT NULL
) RETURNS tidegate.orders LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $function$
  INSERT INTO tidegate.orders (kind, sub, jti, reason, until)
  VALUES ('revoke', revoke.sub, revoke.jti, revoke.reason, coalesce(revoke.until, clock_timestamp() + interval '1 day'))
  RETURNING *
$function$;
REVOKE ALL ON FUNCTION tidegate.revoke(text, text, timestamptz, text) FROM PUBLIC;
