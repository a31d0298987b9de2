CREATE TABLE team_members (
  team_id int,
  user_id uuid,
  PRIMARY KEY (team_id, user_id)
);
CREATE TABLE tasks (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  team_id int NOT NULL,
  title text NOT NULL,
  done boolean NOT NULL DEFAULT false
);

ALTER TABLE team_members ENABLE ROW LEVEL SECURITY;
ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;

CREATE POLICY "your own memberships" ON team_members FOR SELECT TO authenticated
  USING (user_id = (SELECT auth.uid()));
CREATE POLICY "tasks of your teams" ON tasks FOR SELECT TO authenticated
  USING (EXISTS (SELECT FROM team_members m WHERE m.team_id = tasks.team_id AND m.user_id = (SELECT auth.uid())));

GRANT USAGE ON SCHEMA public TO authenticated;
GRANT SELECT ON tasks, team_members TO authenticated;
