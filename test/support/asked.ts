// Tables whose policies only Postgres can judge.
import { asSet, type LiveSse, selectAs } from './node.ts'
import type { TestDatabase } from './postgres.ts'

/** `papers` are read by their crew, as a PL/pgSQL function finds it; `polls` by whoever answered in more than two rooms. */
export const askedSchema = `
  CREATE TABLE public.crew (room_id int, user_id uuid, PRIMARY KEY (room_id, user_id));
  CREATE TABLE public.papers (id int PRIMARY KEY, room_id int NOT NULL, author text, body text);
  CREATE TABLE public.answers (id int PRIMARY KEY, user_id uuid, room_id int);
  CREATE TABLE public.polls (id int, place text, body text, PRIMARY KEY (id, place));
  CREATE FUNCTION public.is_crew(room int) RETURNS bool LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = '' AS $$
    BEGIN
      RETURN EXISTS (SELECT 1 FROM public.crew c WHERE c.room_id = room AND c.user_id = auth.uid());
    END $$;
  ALTER TABLE public.papers ENABLE ROW LEVEL SECURITY;
  ALTER TABLE public.polls ENABLE ROW LEVEL SECURITY;
  CREATE POLICY by_crew ON public.papers FOR SELECT TO authenticated USING (public.is_crew(room_id));
  CREATE POLICY all_of_them ON public.papers FOR SELECT TO anon USING (author = 'all');
  CREATE POLICY by_count ON public.polls FOR SELECT TO authenticated USING (
    (SELECT count(*) FROM public.answers a WHERE a.user_id = auth.uid()) > 2);
  GRANT USAGE ON SCHEMA public TO authenticated, anon;
  GRANT SELECT ON public.papers, public.polls, public.answers TO authenticated;
  GRANT SELECT ON public.papers TO anon;
`
export const askedTables = ['crew', 'papers', 'answers', 'polls']

/** Resolves when the rows are those of the reader's SELECT. */
export async function equals(
  database: TestDatabase,
  live: LiveSse,
  sub: string,
  sql: string,
  timeoutMs = 10_000,
): Promise<void> {
  let expected: string[] = []
  const isSo = (): boolean => live.failure !== null || asSet(live.rows.list()).join() === expected.join()
  const deadline = Date.now() + timeoutMs
  do {
    expected = asSet(await selectAs(database, sub, sql))
    await live.stream.waitFor(isSo, 200).catch(() => {})
  } while (!isSo() && Date.now() < deadline)
  if (live.failure !== null) throw live.failure
  if (!isSo())
    throw new Error(`rows are ${asSet(live.rows.list())}, not ${expected}\n${live.rows.history.slice(-8).join('\n')}`)
}
