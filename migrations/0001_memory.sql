-- What Tidegate remembers of the database as it was, so that `untrack` and `remove` can give it back. Forward only: a
-- change of these tables is a new file. Relations are kept as regclass: they follow a rename, and a dump prints names.

-- What `migrate` made, and nothing else is ever dropped. kind: publication, event trigger,
-- role, schema, member, usage.
CREATE TABLE tidegate.installed (
  kind text NOT NULL,
  name text NOT NULL,
  -- Whom it was granted to. member: name is the role. usage: name is the schema. Else empty.
  detail text NOT NULL DEFAULT '',
  PRIMARY KEY (kind, name, detail)
);

-- Functions of migrations/functions that `migrate` made. source_hash: of the file in migrations/functions. body_hash: of the
-- body as it was installed; when it differs now, someone else has replaced the function and it is theirs.
CREATE TABLE tidegate.installed_function (
  signature text PRIMARY KEY,
  source_hash text NOT NULL,
  body_hash text NOT NULL
);

CREATE TABLE tidegate.tracked (
  publication text NOT NULL,
  relation regclass NOT NULL,
  -- schema.table when it was tracked: finds the row again after DROP TABLE.
  name text NOT NULL,
  -- Its name in this schema.
  read_function text NOT NULL,
  -- The index that `track --index` made, else null.
  identity_index regclass,
  PRIMARY KEY (publication, relation)
);

-- The replica identity that each table and partition had before `track` changed it.
CREATE TABLE tidegate.identity_before (
  relation regclass PRIMARY KEY,
  -- The tracked table: itself, or the root of its partitions.
  root regclass NOT NULL,
  -- As pg_class.relreplident: d, n, f, i.
  identity "char" NOT NULL,
  identity_index regclass
);
