#!/bin/sh
# Run once by the Postgres image, when the database is made: the login that Tidegate runs as. It owns nothing; what it may
# read is granted by `tidegate migrate` and `tidegate track`.
psql -v ON_ERROR_STOP=1 -v password="$TIDEGATE_PASSWORD" -U "$POSTGRES_USER" -d "$POSTGRES_DB" <<'SQL'
CREATE ROLE tidegate LOGIN REPLICATION PASSWORD :'password';
SQL
