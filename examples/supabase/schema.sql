-- As one would write it in the SQL editor of a Supabase project.
create table members (
  room text not null,
  user_id uuid not null,
  primary key (room, user_id)
);
create table messages (
  id bigint generated always as identity primary key,
  room text not null,
  user_id uuid not null default auth.uid(),
  name text not null,
  body text not null,
  sent_at timestamptz not null default now()
);

alter table members enable row level security;
alter table messages enable row level security;

create policy "your own memberships" on members for select to authenticated using (user_id = (select auth.uid()));
create policy "members read" on messages for select to authenticated using (
  exists (select from members m where m.room = messages.room and m.user_id = (select auth.uid())));
create policy "members write" on messages for insert to authenticated with check (
  user_id = (select auth.uid())
  and exists (select from members m where m.room = messages.room and m.user_id = (select auth.uid())));
create policy "authors delete" on messages for delete to authenticated using (user_id = (select auth.uid()));

-- Who may be in the channel: receive, send and be seen.
create policy "members receive" on realtime.messages for select to authenticated using (
  exists (select from public.members m where 'room:' || m.room = (select realtime.topic()) and m.user_id = (select auth.uid())));
create policy "members send" on realtime.messages for insert to authenticated with check (
  exists (select from public.members m where 'room:' || m.room = (select realtime.topic()) and m.user_id = (select auth.uid())));

grant usage on schema public to authenticated;
grant select on members to authenticated;
grant select, insert, delete on messages to authenticated;

alter publication supabase_realtime add table messages;
