-- With this key the event trigger signs what it announces of the catalog: any role can write a message into the WAL, and only
-- ours may hold up the stream. Made here, read by tidegate.announce_catalog and by the server's login, by nobody else.
CREATE TABLE tidegate.catalog_key (
  -- 64 bytes, of which 488 bits are random.
  key bytea NOT NULL
);
INSERT INTO tidegate.catalog_key
SELECT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid());
