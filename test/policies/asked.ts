// What Postgres is asked for, of the corpus: a closed list. A test fails when another is asked, and when one of them compiles.

/** Names of entries, with the construct that the refusal names. */
export const asked: Readonly<Record<string, string>> = {
  'authorize() in PL/pgSQL': 'function public.authorize() in language plpgsql',
  'a second factor for those who have one': 'function count()',
  'no more secret than one’s clearance':
    'a condition on public.profiles and the outer row that is no equality of columns',
  'sub-organisations at any depth, by recursion': 'WITH RECURSIVE',
  'sub-organisations at any depth, by a path':
    'a condition on public.orgs and public.orgs that is no equality of columns',
  'is_org_member() in PL/pgSQL': 'function public.is_org_member() in language plpgsql',
  'more than one share': 'function count()',
  'only outside working hours': 'function pg_catalog.extract()',
  'storage: a folder per project': 'a condition on public.projects and the outer row that is no equality of columns',
  'storage: a file’s name, by PL/pgSQL': 'function storage.filename() in language plpgsql',
  'messages, by a function whose names only the caller’s search_path resolves':
    'the table room_members without a schema',
  'the owner of the project or a member of its team, by a left join':
    'a LEFT JOIN of public.team_members whose NULLs matter',
  'one’s first role, whichever that is': 'a scalar subquery that may give several rows of public.org_members',
}
