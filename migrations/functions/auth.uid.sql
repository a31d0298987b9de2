-- The user of the token, as Supabase and PostgREST give it. One SELECT, so that Tidegate and Postgres can both inline it.
-- A setting that was set and reset within a session reads as an empty text, which is no claim.
CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $function$
  SELECT coalesce(
    nullif(pg_catalog.current_setting('request.jwt.claim.sub', true), ''),
    nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
  )::uuid
$function$;
