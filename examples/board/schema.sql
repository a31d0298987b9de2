-- Boards with columns and cards, and who is a member of which. Who may read and write is said here, once, for SQL and for Tidegate.

CREATE TABLE boards (
  id   int PRIMARY KEY,
  name text NOT NULL
);

CREATE TABLE members (
  board_id int NOT NULL REFERENCES boards,
  user_id  uuid NOT NULL,
  name     text NOT NULL,
  PRIMARY KEY (board_id, user_id)
);

CREATE TABLE columns (
  id       int PRIMARY KEY,
  board_id int NOT NULL REFERENCES boards,
  title    text NOT NULL,
  position double precision NOT NULL,
  UNIQUE (board_id, id)
);

CREATE TABLE cards (
  id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  board_id  int NOT NULL,
  column_id int NOT NULL,
  title     text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
  position  double precision NOT NULL,
  FOREIGN KEY (board_id, column_id) REFERENCES columns (board_id, id)
);
CREATE INDEX ON members (user_id);
CREATE INDEX ON cards (board_id);

CREATE FUNCTION is_member(board int) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
  SELECT EXISTS (SELECT FROM public.members m WHERE m.board_id = board AND m.user_id = auth.uid())
$$;

ALTER TABLE boards ENABLE ROW LEVEL SECURITY;
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
ALTER TABLE columns ENABLE ROW LEVEL SECURITY;
ALTER TABLE cards ENABLE ROW LEVEL SECURITY;

CREATE POLICY of_members ON boards FOR SELECT TO authenticated USING (is_member(id));
CREATE POLICY of_members ON columns FOR SELECT TO authenticated USING (is_member(board_id));
CREATE POLICY of_members ON cards TO authenticated USING (is_member(board_id));
CREATE POLICY of_members ON members TO authenticated USING (is_member(board_id));
GRANT SELECT ON boards, columns TO authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON cards TO authenticated;
GRANT SELECT, INSERT, DELETE ON members TO authenticated;

-- Who is on a board sees who is looking at it, and where they point.
CREATE POLICY board_members ON realtime.messages TO authenticated USING (
  EXISTS (SELECT FROM members m
    WHERE 'board:' || m.board_id = (SELECT realtime.topic()) AND m.user_id = (SELECT auth.uid())));

INSERT INTO boards VALUES (1, 'Spring release');
INSERT INTO members VALUES
  (1, '00000000-0000-4000-8000-000000000ada', 'Ada'),
  (1, '00000000-0000-4000-8000-000000000b0b', 'Ben');
INSERT INTO columns VALUES (1, 1, 'To do', 1), (2, 1, 'Doing', 2), (3, 1, 'Done', 3);
INSERT INTO cards (board_id, column_id, title, position) VALUES
  (1, 1, 'Write the release notes', 1),
  (1, 1, 'Try the update on a copy of the database', 2),
  (1, 1, 'Tell support what changes', 3),
  (1, 2, 'Translate the new settings page', 1),
  (1, 2, 'Measure start-up on a small machine', 2),
  (1, 3, 'Agree on a date', 1);
