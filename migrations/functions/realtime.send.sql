-- Sends a message to a channel with the commit of this transaction, or not at all: what fails here fails the caller. Runs with
-- the caller's rights, so that the INSERT policies on realtime.messages decide. Those may call functions that count on the
-- caller's search_path, so none is set here.
CREATE OR REPLACE FUNCTION realtime.send(payload jsonb, event text, topic text, private boolean DEFAULT true)
RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
  message_id uuid := pg_catalog.gen_random_uuid();
  topic_before text := pg_catalog.current_setting('realtime.topic', true);
BEGIN
  IF send.event IS NULL THEN
    RAISE EXCEPTION 'realtime.send: the event is null' USING ERRCODE = 'null_value_not_allowed';
  END IF;
  IF send.topic IS NULL OR pg_catalog.char_length(send.topic) NOT BETWEEN 1 AND 255 OR send.topic ~ '[\u0001-\u001f\u007f]' THEN
    RAISE EXCEPTION 'realtime.send: the topic % is null, empty, longer than 255 characters, or holds control characters',
      coalesce(pg_catalog.quote_literal(pg_catalog.left(send.topic, 300)), 'NULL') USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_catalog.set_config('realtime.topic', send.topic, true);
  INSERT INTO realtime.messages (id, topic, extension, event, payload, private)
  VALUES (message_id, send.topic, 'broadcast', send.event,
    CASE WHEN pg_catalog.jsonb_typeof(send.payload) = 'object' AND NOT send.payload ? 'id'
      THEN send.payload || pg_catalog.jsonb_build_object('id', message_id)
      ELSE coalesce(send.payload, 'null')
    END, coalesce(send.private, true));
  PERFORM pg_catalog.set_config('realtime.topic', topic_before, true);
END
$function$;
