-- As realtime.send, for bytes.
CREATE OR REPLACE FUNCTION realtime.send_binary(payload bytea, event text, topic text, private boolean DEFAULT true)
RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
  topic_before text := pg_catalog.current_setting('realtime.topic', true);
BEGIN
  IF send_binary.payload IS NULL OR send_binary.event IS NULL THEN
    RAISE EXCEPTION 'realtime.send_binary: the payload or the event is null' USING ERRCODE = 'null_value_not_allowed';
  END IF;
  IF send_binary.topic IS NULL OR pg_catalog.char_length(send_binary.topic) NOT BETWEEN 1 AND 255 OR send_binary.topic ~ '[\u0001-\u001f\u007f]' THEN
    RAISE EXCEPTION 'realtime.send_binary: the topic % is null, empty, longer than 255 characters, or holds control characters',
      coalesce(pg_catalog.quote_literal(pg_catalog.left(send_binary.topic, 300)), 'NULL')
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_catalog.set_config('realtime.topic', send_binary.topic, true);
  INSERT INTO realtime.messages (topic, extension, event, binary_payload, private)
  VALUES (send_binary.topic, 'broadcast', send_binary.event, send_binary.payload, coalesce(send_binary.private, true));
  PERFORM pg_catalog.set_config('realtime.topic', topic_before, true);
END
$function$;
