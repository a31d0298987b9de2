-- Functions of somebody else that `migrate --adopt-realtime` replaced, as pg_get_functiondef gave them: `remove` puts them back.
CREATE TABLE tidegate.replaced_function (
  signature text PRIMARY KEY,
  definition text NOT NULL
);
