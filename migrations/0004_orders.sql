-- What operators order: to end connections, to refuse tokens, to ask for newer ones. In the publication, so that every node gets
-- an order with the commit that gives it, before its rows, and none that was rolled back. A row is in force for as long as it
-- is here: to take an order back, delete it.
CREATE TABLE tidegate.orders (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind text NOT NULL CHECK (kind IN ('kick', 'revoke', 'refresh')),
  -- The token's claim `sub`.
  sub text,
  -- The name that the server gave the connection.
  connection text,
  topic text,
  -- The token's claim `jti`.
  jti text,
  -- Of a kick: when its clients are told to come back. Null: in some seconds.
  retry_after_ms integer CHECK (retry_after_ms BETWEEN 0 AND 86400000),
  -- Of a refresh: how long sessions have to present a newer token.
  within_ms integer CHECK (within_ms BETWEEN 1000 AND 600000),
  -- Told to the client.
  reason text CHECK (length(reason) <= 200),
  -- By this server's clock. Tokens issued in this second or before it are the older ones.
  ordered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- Then the row is deleted.
  until timestamptz NOT NULL,
  CONSTRAINT "a kick names a user, a connection, a topic or a token"
    CHECK (kind <> 'kick' OR (num_nonnulls(sub, connection, topic, jti) > 0 AND within_ms IS NULL)),
  CONSTRAINT "a kick from a topic names no token"
    CHECK (kind <> 'kick' OR topic IS NULL OR jti IS NULL),
  CONSTRAINT "a revoke names a user or a token, one of them"
    CHECK (kind <> 'revoke' OR (num_nonnulls(sub, jti) = 1 AND num_nonnulls(connection, topic, retry_after_ms, within_ms) = 0)),
  CONSTRAINT "a refresh names a user"
    CHECK (kind <> 'refresh' OR (sub IS NOT NULL AND within_ms IS NOT NULL AND num_nonnulls(jti, connection, topic, retry_after_ms) = 0)),
  CONSTRAINT "names are no longer than 1000 characters"
    CHECK (greatest(length(sub), length(connection), length(topic), length(jti)) <= 1000)
);

-- Every node holds all rows in memory.
CREATE FUNCTION tidegate.bound_orders() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $function$
BEGIN
  IF (SELECT count(*) FROM (SELECT FROM tidegate.orders LIMIT 100001) AS found) > 100000 THEN
    RAISE EXCEPTION USING ERRCODE = '54000', MESSAGE = 'tidegate.orders has 100000 rows, its limit',
      HINT = 'give orders that end sooner, or delete some that are not needed any more';
  END IF;
  RETURN NULL;
END
$function$;
REVOKE ALL ON FUNCTION tidegate.bound_orders() FROM PUBLIC;
CREATE TRIGGER bound AFTER INSERT ON tidegate.orders FOR EACH STATEMENT EXECUTE FUNCTION tidegate.bound_orders();

-- An order counts from its commit: a token that was issued while the transaction was open knows nothing of what it changed.
CREATE FUNCTION tidegate.date_order() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $function$
BEGIN
  UPDATE tidegate.orders SET ordered_at = clock_timestamp()
  WHERE id = NEW.id AND date_trunc('second', ordered_at) < date_trunc('second', clock_timestamp());
  RETURN NULL;
END
$function$;
REVOKE ALL ON FUNCTION tidegate.date_order() FROM PUBLIC;
CREATE CONSTRAINT TRIGGER date AFTER INSERT ON tidegate.orders DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION tidegate.date_order();
