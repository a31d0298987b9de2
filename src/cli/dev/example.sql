-- The example of `tidegate dev`: rooms, who is a member of them, and what is said there. Who may read what is said once,
-- here, in the database's own row-level security; Tidegate reads the policies and has none of its own.

CREATE TABLE rooms (
  id   bigint PRIMARY KEY,
  name text NOT NULL
);

CREATE TABLE members (
  room_id bigint NOT NULL REFERENCES rooms ON DELETE CASCADE,
  user_id uuid NOT NULL,
  role    text NOT NULL DEFAULT 'member',
  PRIMARY KEY (room_id, user_id)
);

CREATE TABLE messages (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  room_id    bigint NOT NULL REFERENCES rooms ON DELETE CASCADE,
  author     uuid NOT NULL,
  body       text NOT NULL CHECK (length(body) BETWEEN 1 AND 500),
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON members (user_id);
CREATE INDEX ON messages (room_id);

ALTER TABLE rooms ENABLE ROW LEVEL SECURITY;
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
ALTER TABLE messages ENABLE ROW LEVEL SECURITY;

CREATE POLICY "your own memberships" ON members FOR SELECT TO authenticated
  USING (user_id = (SELECT auth.uid()));

CREATE POLICY "rooms you are in" ON rooms FOR SELECT TO authenticated
  USING (EXISTS (SELECT 1 FROM members m WHERE m.room_id = rooms.id AND m.user_id = (SELECT auth.uid())));

CREATE POLICY "messages of rooms you are in" ON messages FOR SELECT TO authenticated
  USING (EXISTS (SELECT 1 FROM members m WHERE m.room_id = messages.room_id AND m.user_id = (SELECT auth.uid())));

GRANT SELECT ON rooms, members, messages TO authenticated;

INSERT INTO rooms VALUES (1, 'Lobby'), (2, 'Workshop'), (3, 'Garden');

-- Ada ends in ...ada, Ben in ...b0b.
INSERT INTO members VALUES
  (1, '00000000-0000-4000-8000-000000000ada', 'owner'),
  (2, '00000000-0000-4000-8000-000000000ada', 'owner'),
  (1, '00000000-0000-4000-8000-000000000b0b', 'member'),
  (3, '00000000-0000-4000-8000-000000000b0b', 'owner');

INSERT INTO messages (room_id, author, body, created_at) VALUES
  (1, '00000000-0000-4000-8000-000000000ada', 'Morning! We both see the Lobby.', now() - interval '9 minutes'),
  (1, '00000000-0000-4000-8000-000000000b0b', 'Good to see you here.', now() - interval '8 minutes'),
  (2, '00000000-0000-4000-8000-000000000ada', 'Only members of the Workshop read this.', now() - interval '5 minutes'),
  (3, '00000000-0000-4000-8000-000000000b0b', 'The tomatoes are in.', now() - interval '3 minutes');
