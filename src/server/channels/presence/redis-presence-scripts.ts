// What presence is in Redis, and the scripts that change it.
//
// Of each channel, under its hash tag:
//   here               hash: by connection, `<ref> <life> <grace> <since> <back>\n<the rest of the entry, JSON without braces>`
//   here:order         sorted set of `<ref> <connection>`, in order of text: for pages
//   here:head          hash: epoch and number of the last diff
//   here:broken        sorted set of connections: when they leave, by Redis's clock
//   here:back          sorted set of `<back> <connection>` of those that broke: `back` is a hash of key and user
//   here:of:<life>     set of connections that a life of a node has, and are not broken
//   here:turn:<node>   number of its last call
// A life is what a node calls itself until its lease lapses or Redis has lost something; then it takes another, and what is left of the
// old one is swept. A broken entry has the life `-`: it belongs to nobody, and leaves when its time is over.
// Work is in proportion to what changes, and logarithmic in the channel's members.
import { tellLua } from '../relay/redis-keys.ts'

const entriesLua = `
local function parse(value)
  local ref, life, grace, since, back, rest = string.match(value, '^(%S+) (%S+) (%d+) (%d+) (%S+)\\n(.*)$')
  return { ref = ref, life = life, grace = grace, since = since, back = back, rest = rest }
end
local function json(entry)
  return '{"ref":"' .. entry.ref .. '","sinceMs":' .. entry.since .. ',' .. entry.rest .. '}'
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`

/** Empty channels keep the number of their diffs so long, for whoever looks on. */
export const emptyMs = 600_000

/** A call that its node gave up may still lie in a socket of a Redis that stands: for so long one that is older than another is not
 *  carried out. */
const turnMs = 60_000

/** KEYS: here, order, head, broken, back, of the caller's life, the caller's turn, of the life to be swept.
 *  ARGV: name to publish under, life, turn (0: none), an epoch if one is needed, known epoch or '', known number, life to be swept or '',
 *  when that was heard last, then the ops:
 *    'p', connection, back, grace, since, ref it had or '', ref if it is new, rest
 *    'l', connection, back or ''
 *    'b', connection, milliseconds
 *  Answers epoch, number, milliseconds until the next broken one leaves or -1, how many are left to be swept or to leave now, refs of
 *  what was put. */
export const applyLua = `${tellLua}${entriesLua}
local here, order, head, broken, back = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local life, fresh, swept = ARGV[2], ARGV[4], ARGV[7]
local stood = redis.call('HMGET', head, 'epoch', 'seq')
if ARGV[3] ~= '0' then
  local turn = redis.call('GET', KEYS[7])
  if turn and tonumber(turn) >= tonumber(ARGV[3]) then return redis.error_reply('LATE a later call was here') end
  redis.call('SET', KEYS[7], ARGV[3], 'PX', ${turnMs})
end
local epoch, seq = stood[1], tonumber(stood[2] or '0')
local isNew = not epoch or (epoch == ARGV[5] and seq < tonumber(ARGV[6]))
if isNew then epoch, seq = fresh, 0 end

local joined, updated, left, refs = {}, {}, {}, {}
local function write(connection, entry)
  redis.call('HSET', here, connection,
    table.concat({ entry.ref, entry.life, entry.grace, entry.since, entry.back }, ' ') .. '\\n' .. entry.rest)
end
local function mend(connection, entry)
  redis.call('ZREM', broken, connection)
  redis.call('ZREM', back, entry.back .. ' ' .. connection)
end
local function remove(connection, entry)
  redis.call('HDEL', here, connection)
  redis.call('ZREM', order, entry.ref .. ' ' .. connection)
  if entry.life == '-' then mend(connection, entry)
  elseif entry.life == life then redis.call('SREM', KEYS[6], connection) end
  left[#left + 1] = json(entry)
end
local function fail(connection, entry, untilMs)
  if entry.life == life then redis.call('SREM', KEYS[6], connection) end
  if entry.life ~= '-' then
    entry.life = '-'
    write(connection, entry)
  end
  redis.call('ZADD', broken, untilMs, connection)
  redis.call('ZADD', back, 0, entry.back .. ' ' .. connection)
end
local function find(connection, place)
  local value = redis.call('HGET', here, connection)
  if value or place == '' then return value, connection end
  local found = redis.call('ZRANGEBYLEX', back, '[' .. place .. ' ', '(' .. place .. '!', 'LIMIT', 0, 1)[1]
  if not found then return value, connection end
  local from = string.sub(found, #place + 2)
  return redis.call('HGET', here, from), from
end
local function put(connection, place, grace, since, formerRef, newRef, rest)
  local old, from = find(connection, place)
  if not old then
    local ref = newRef
    if formerRef ~= '' and #redis.call('ZRANGEBYLEX', order, '[' .. formerRef .. ' ', '(' .. formerRef .. '!', 'LIMIT', 0, 1) == 0 then
      ref = formerRef
    end
    local entry = { ref = ref, life = life, grace = grace, since = since, back = place, rest = rest }
    write(connection, entry)
    redis.call('ZADD', order, 0, ref .. ' ' .. connection)
    redis.call('SADD', KEYS[6], connection)
    joined[#joined + 1] = json(entry)
    return ref
  end
  local entry = parse(old)
  if entry.life == '-' then mend(from, entry) end
  if from ~= connection then
    redis.call('HDEL', here, from)
    redis.call('ZREM', order, entry.ref .. ' ' .. from)
    redis.call('ZADD', order, 0, entry.ref .. ' ' .. connection)
  end
  if entry.life ~= life then redis.call('SADD', KEYS[6], connection) end
  local isChanged = entry.rest ~= rest
  entry.life, entry.grace, entry.back, entry.rest = life, grace, place, rest
  write(connection, entry)
  if isChanged then updated[#updated + 1] = json(entry) end
  return entry.ref
end

local at = 9
while at <= #ARGV do
  local kind, connection = ARGV[at], ARGV[at + 1]
  if kind == 'p' then
    refs[#refs + 1] = put(connection, unpack(ARGV, at + 2, at + 7))
    at = at + 8
  else
    if kind == 'l' then
      local value, from = find(connection, ARGV[at + 2])
      if value then remove(from, parse(value)) end
      at = at + 3
    else
      local value = redis.call('HGET', here, connection)
      if value then fail(connection, parse(value), now + tonumber(ARGV[at + 2])) end
      at = at + 3
    end
  end
end

local more = 0
if swept ~= '' then
  for _, connection in ipairs(redis.call('SPOP', KEYS[8], 500)) do
    local value = redis.call('HGET', here, connection)
    local entry = value and parse(value)
    if entry and entry.life == swept then
      local untilMs = tonumber(ARGV[8]) + tonumber(entry.grace)
      if untilMs > now then fail(connection, entry, untilMs) else remove(connection, entry) end
    end
  end
  more = redis.call('SCARD', KEYS[8])
end
for _, connection in ipairs(redis.call('ZRANGEBYSCORE', broken, '-inf', now, 'LIMIT', 0, 500)) do
  remove(connection, parse(redis.call('HGET', here, connection)))
end

local count = redis.call('ZCARD', order)
local changes = #joined + #updated + #left
if isNew or changes > 0 then
  -- Also an epoch that begins with no change is news for whoever knew another.
  seq = seq + 1
  redis.call('HSET', head, 'epoch', epoch, 'seq', seq)
  tell(ARGV[1], table.concat({ 'p1 ', epoch, ' ', string.format('%.0f', seq), ' ', count, '\\n{"joined":[', table.concat(joined, ','),
    '],"updated":[', table.concat(updated, ','), '],"left":[', table.concat(left, ','), ']}' }))
end
if count == 0 then redis.call('PEXPIRE', head, ${emptyMs}) else redis.call('PERSIST', head) end
local due = -1
local first = redis.call('ZRANGE', broken, 0, 0, 'WITHSCORES')
if first[2] then due = math.max(0, tonumber(first[2]) - now) end
return { epoch, string.format('%.0f', seq), due, more, unpack(refs) }
`

/** KEYS: here, order, head. ARGV: an epoch if one is needed, ref to go on behind or '', limit or -1.
 *  Answers epoch, number, count, entries as a JSON array. */
export const listLua = `${entriesLua}
local stood = redis.call('HMGET', KEYS[3], 'epoch', 'seq')
local count = redis.call('ZCARD', KEYS[2])
if not stood[1] then
  stood = { ARGV[1], '0' }
  redis.call('HSET', KEYS[3], 'epoch', ARGV[1], 'seq', 0)
  if count == 0 then redis.call('PEXPIRE', KEYS[3], ${emptyMs}) end
end
local from = ARGV[2] == '' and '-' or '(' .. ARGV[2] .. '!'
local texts = {}
for i, member in ipairs(redis.call('ZRANGEBYLEX', KEYS[2], from, '+', 'LIMIT', 0, ARGV[3])) do
  texts[i] = json(parse(redis.call('HGET', KEYS[1], string.match(member, '^%S+ (.*)$'))))
end
return { stood[1], stood[2], count, '[' .. table.concat(texts, ',') .. ']' }
`
