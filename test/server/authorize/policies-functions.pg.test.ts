import { afterAll, beforeAll } from 'vitest'
import { PolicyBench } from './policy-bench.ts'
import { type Case, helper, judgedLikePostgres } from './policy-cases.ts'

let bench: PolicyBench

beforeAll(async () => {
  bench = await PolicyBench.create()
})

afterAll(() => bench[Symbol.asyncDispose]())

/** As Supabase defines realtime.topic(). */
const topic = helper('topic() RETURNS text', `SELECT nullif(current_setting('realtime.topic', true), '')::text`)
const rooms = `auth.jwt() -> 'app_metadata' -> 'rooms'`

const text: readonly Case[] = [
  { name: '|| beside a number', setup: topic, using: `topic() LIKE 'room:' || room_id || ':%'` },
  { name: '|| as a key', setup: topic, using: `'room:' || room_id::text || ':Hello' = topic()` },
  { name: '|| of text and text, NULL in the row', using: `body || '!' = 'hello!' OR (body || status) IS NULL` },
  {
    name: '|| of a boolean, a uuid and a number',
    using: `is_public || '/' || author || '/' || price = 'true/' || auth.uid() || '/1.50'`,
  },
  { name: 'split_part of a topic', setup: topic, using: `split_part(topic(), ':', 2) = room_id::text` },
  { name: 'split_part from the end', using: `split_part(label, '@', -1) IN ('y', 'z')` },
  { name: 'split_part to a number', setup: topic, using: `split_part(topic(), ':', 2)::int = room_id` },
  { name: 'substring from a place', setup: topic, using: `substring(topic() from 6) = room_id || ':Hello'` },
  {
    name: 'substring and substr',
    using: `substring(body from 2 for 3) = 'ell' OR substr(body, -1, 3) = 'w' OR substr(code, 2) = ''`,
  },
  { name: 'left and right', using: `left(body, 2) = 'he' OR right(body, -4) = 'd'` },
  { name: 'length', using: `length(body) = 5 AND char_length(pad) = 1 OR octet_length(body) = 6` },
  { name: 'position and strpos', using: `position('l' in body) = 3 OR strpos(body, 'o') = 2` },
  {
    name: 'starts_with and ^@',
    setup: topic,
    using: `starts_with(topic(), 'room:') AND body ^@ 'h' OR starts_with(body, 'w')`,
  },
  { name: 'lower under the C collation', using: `lower(code) = 'abc' OR lower(body COLLATE "C") = 'hello'` },
  { name: 'upper under the C collation', using: `upper(code) = 'ABC'` },
  { name: 'lower of the database’s collation', using: `lower(body) = 'hello' OR lower(label) = 'x@y'` },
  { name: 'lower of a claim', using: `lower(auth.jwt() ->> 'email') = 'ada@example.org' AND lower(pad) = 'ab'` },
  { name: 'replace', using: `replace(body, 'l', 'L') = 'heLLo' OR replace(status, 'o', '') = 'pen'` },
  { name: 'trim', using: `trim(both 'ho' from body) = 'ell' OR ltrim(body) = 'none' OR rtrim(code, 'C') = 'AB'` },
  {
    name: 'concat and concat_ws',
    using: `concat(body, is_public, room_id) = 'worldf1' OR concat_ws('-', body, room_id, status) = '2-draft'`,
  },
  { name: 'a cast that cuts', using: `body::varchar(2) = 'he' OR body::char(3) = 'wor'` },
  {
    name: 'a cast of a date to text',
    using: `on_day::text = '2026-01-01' OR at::text = '2020-01-01 00:00:00+00' OR at::date = '2026-01-01'`,
  },
  { name: 'a name beside text', using: `reader_role || '' = CURRENT_USER` },
]

const arrays: readonly Case[] = [
  { name: 'a subscript', using: `tags[1] = 'a' OR tags[2] = 'a'` },
  { name: 'a subscript of a path', using: `(string_to_array(label, '@'))[1] = 'x'` },
  { name: 'a slice', using: `tags[1:1] = '{a}' OR tags[2:] = '{a}' OR tags[:1] IS NULL` },
  {
    name: 'the folders of a path, in SQL',
    setup: helper(
      'foldername(name text) RETURNS text[]',
      `SELECT (string_to_array(name, '/'))[1 : array_length(string_to_array(name, '/'), 1) - 1]`,
      'IMMUTABLE',
    ).replace('STABLE', ''),
    using: `(foldername(author || '/' || body))[1] = auth.uid()::text`,
  },
  { name: 'array_length and cardinality', using: `array_length(tags, 1) = 2 OR cardinality(editors) = 1` },
  { name: '@> and <@', using: `tags @> ARRAY['a'] OR ARRAY[auth.uid()] <@ editors` },
  { name: '&&', using: `tags && '{b,c}'::text[] OR NOT (editors && ARRAY[auth.uid()])` },
  { name: 'array_to_string', using: `array_to_string(tags, ',', '?') IN ('a,b', '?,a')` },
  {
    name: '= ANY of a split setting',
    using: `org_id::text = ANY (string_to_array(current_setting('app.orgs', true), ','))`,
  },
  {
    name: 'the same as numbers',
    using: `org_id = ANY (string_to_array(current_setting('app.orgs', true), ',')::bigint[])`,
  },
  {
    name: 'the same as a set',
    using: `org_id IN (SELECT unnest(string_to_array(current_setting('app.orgs', true), ','))::bigint)`,
  },
  { name: 'NOT IN a set', using: `room_id NOT IN (SELECT jsonb_array_elements_text(${rooms})::int)` },
  { name: 'IN a JSON list', using: `room_id IN (SELECT jsonb_array_elements_text(${rooms})::int)` },
  {
    name: 'IN a JSON list, as a column',
    using: `room_id IN (SELECT r.value::int FROM jsonb_array_elements_text(${rooms}) r)`,
  },
  {
    name: 'IN a JSON list, renamed',
    using: `room_id::text IN (SELECT r FROM jsonb_array_elements_text(${rooms}) AS t(r))`,
  },
  {
    name: '= ANY of an array of a JSON list',
    using: `author = ANY (ARRAY(SELECT jsonb_array_elements_text(auth.jwt() -> 'app_metadata' -> 'editors')::uuid))`,
  },
  {
    name: 'the same, cast as a whole',
    using: `room_id = ANY (ARRAY(SELECT jsonb_array_elements_text(${rooms}))::int[])`,
  },
  {
    name: 'a json list',
    using: `status IN (SELECT json_array_elements_text((auth.jwt() -> 'app_metadata' -> 'names')::json))`,
  },
  {
    name: 'names of a JSON object',
    using: `status IN (SELECT jsonb_object_keys(auth.jwt() -> 'app_metadata' -> 'flags'))`,
  },
  {
    name: 'a helper that gives a set of claims',
    setup: helper('rooms() RETURNS SETOF int', `SELECT jsonb_array_elements_text(${rooms})::int`),
    using: 'room_id IN (SELECT rooms())',
  },
  {
    name: 'a helper that gives an array of claims',
    setup: helper('rooms() RETURNS int[]', `SELECT ARRAY(SELECT jsonb_array_elements_text(${rooms})::int)`),
    using: 'room_id = ANY (rooms())',
  },
  {
    name: 'a JSON list of the row',
    using: `'2' IN (SELECT jsonb_array_elements_text(jsonb_extract_path(to_jsonb(room_id), '0')))`,
    empty: true,
  },
]

const json: readonly Case[] = [
  { name: '?', using: `meta ? 'room' AND NOT meta ? 'own'` },
  { name: '? of a claim', using: `(auth.jwt() -> 'app_metadata' -> 'names') ? status` },
  { name: '?| and ?&', using: `meta ?| ARRAY['own', 'x'] OR meta ?& ARRAY['room', 'own']` },
  { name: '@> and <@', using: `meta @> '{"own": true}' OR '{"room": 3.0}' <@ meta OR (${rooms}) @> '1'` },
  { name: '@> of a column as JSON', using: `(${rooms}) @> to_jsonb(room_id)` },
  {
    name: 'a path with a number',
    using: `room_id = (auth.jwt() #>> '{app_metadata,rooms,1}')::int OR (auth.jwt() #>> '{app_metadata,deep,0,0}')::int = room_id`,
  },
  {
    name: 'a path function with a number',
    using: `jsonb_extract_path_text(auth.jwt(), 'app_metadata', 'rooms', '0') = room_id::text`,
  },
  { name: 'how long, and what', using: `jsonb_array_length(${rooms}) = room_id OR jsonb_typeof(meta) = 'array'` },
  {
    name: 'a boolean and a number of JSON',
    using: `(auth.jwt() -> 'app_metadata' -> 'flags' -> 'a')::boolean AND (auth.jwt() -> 'app_metadata' -> 'rooms' -> 0)::int = room_id`,
  },
]

const numbers: readonly Case[] = [
  { name: 'sums', using: 'room_id + 1 = 2 OR org_id - room_id = 18' },
  { name: 'products', using: 'room_id * 10 = org_id OR price * 2 = 3.0' },
  { name: 'what remains', using: 'room_id % 2 = 0 OR mod(id, 4) = 1' },
  { name: 'division of integers', using: 'org_id / 7 = 2 OR -room_id / 2 = -1' },
  { name: 'signs', using: '-price > 0 OR abs(price) = 10' },
  { name: 'precision', using: 'price::numeric(10, 0) = 2 OR price::int = 10' },
  { name: 'GREATEST and LEAST', using: 'greatest(room_id, id) = 2 OR least(org_id, NULL, 15) = 15' },
  {
    name: 'CASE with values',
    using: `CASE WHEN is_public THEN 'x' WHEN room_id = 2 THEN status ELSE body END IN ('world', 'draft')`,
  },
  {
    name: 'CASE of a value',
    using: `CASE status WHEN 'open' THEN room_id WHEN 'closed' THEN 4 END = 3 OR CASE room_id WHEN 1 THEN is_public ELSE false END`,
  },
  {
    name: 'CASE by a membership',
    using: `CASE WHEN EXISTS (SELECT FROM members m WHERE m.room_id = messages.room_id AND m.user_id = auth.uid()) THEN 1 ELSE 2 END = room_id`,
  },
  { name: 'IS DISTINCT FROM NULL', using: 'NULL IS DISTINCT FROM author AND room_id IS NOT DISTINCT FROM 2' },
  { name: 'IS DISTINCT FROM of conditions', using: '(room_id = 1) IS DISTINCT FROM is_public' },
  {
    name: 'dates and timestamps together',
    using: `on_day > at OR at >= '2026-01-01'::date OR on_day + 1 = '2026-02-02'`,
  },
  {
    name: 'intervals on columns',
    using: `at + interval '1 month 2 days' > '2026-02-03'::timestamptz OR on_day - interval '1 day' = '2025-12-31'`,
  },
]

judgedLikePostgres(() => bench, [...text, ...arrays, ...json, ...numbers])
