// What is done with a channel in Redis in one step each.
//
// Numbers. `meta` holds the epoch, the number given last, and the life of the server that gave it: its replication ID, which is
// another after each restart and each time a replica takes over. Then some of the newest numbers may be lost, and would be given
// again. Nobody who is left may know: nodes may have died with it, and clients know but ask later. So with each new life a channel
// goes into a new epoch, in which its numbers go on where they are found; `before` says of former epochs where they ended, so that
// who has no more than that goes on without a gap, and who has more is told. (That Redis begins another replication ID also when the
// last replica has been gone for an hour costs nothing but another epoch.)
//
// A number is written down before its message is: one that fails in the middle leaves a hole, which is told, and no number is given
// twice in an epoch. Memory is checked by Redis before the first write of a script, which is that one.
import { tellLua } from './redis-keys.ts'

/** Lua: `open(fresh, start)` gives epoch, number, former epochs and what is to be written before the first use, for the channel whose
 *  `meta` is KEYS[1]. Without `start` and a counter: nil. */
const openLua = `
local maxFormers = 8
local function open(fresh, start)
  local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'life', 'before')
  local life = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
    or string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
  if not meta[1] then
    if not start then return nil end
    -- What is left of a history without its counter.
    redis.call('DEL', KEYS[2])
    return fresh, tonumber(start), '-', {'epoch', fresh, 'life', life, 'before', '-'}
  end
  if meta[3] == life then return meta[1], tonumber(meta[2]), meta[4], {} end
  local before, count = meta[1] .. ':' .. meta[2], 1
  for former in string.gmatch(meta[4], '[^,-]+') do
    if count < maxFormers then before = before .. ',' .. former end
    count = count + 1
  end
  return fresh, tonumber(meta[2]), before, {'epoch', fresh, 'life', life, 'before', before}
end
local function text(number) return string.format('%.0f', number) end
local function write(values, ...)
  for _, value in ipairs({...}) do values[#values + 1] = value end
  redis.call('HSET', KEYS[1], unpack(values))
end
local function keep(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, text(ms)) end
end
`

/** Lua: `trim(now, age)` lets messages of KEYS[2] go that are older, and gives the number of the oldest that is left and when it came. */
const trimLua = `
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function numberOf(id) return tonumber(string.match(id, '^%d+')) end
local function trim(now, age)
  local count = 1
  while true do
    local entries, old = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', count), nil
    for _, entry in ipairs(entries) do
      if tonumber(entry[2][2]) >= now - age then
        if old then redis.call('XTRIM', KEYS[2], 'MINID', text(old + 1)) end
        return numberOf(entry[1]), tonumber(entry[2][2])
      end
      old = numberOf(entry[1])
    end
    if not old then return nil end
    redis.call('XTRIM', KEYS[2], 'MINID', text(old + 1))
    count = 32
  end
end
`

/** KEYS: meta, log, the name it is published under, then one for each idempotency key. ARGV: a fresh epoch, the number before its first,
 *  length of the history (0: none), its age in ms, ms for which the counter is kept, ms for which it is where nobody has been in the
 *  channel; then of each draft its id, ms for which its
 *  idempotency key is kept or '', place in the WAL (`walPlace`) or '', text.
 *  Answers the epoch, then of each draft its number, or of a duplicate '<epoch> <number> <id>'. */
export const publishScript = `${tellLua}${openLua}${trimLua}
local epoch, seq, before, fields = open(ARGV[1], ARGV[2])
local length, age = tonumber(ARGV[3]), tonumber(ARGV[4])
local drafts = (#ARGV - 6) / 4
local meta = redis.call('HMGET', KEYS[1], 'wal', 'walSeq', 'age', 'due', 'used')
local wal, walSeq, due = meta[1], meta[2], tonumber(meta[4])
local reserved = seq + drafts
write(fields, 'seq', text(reserved))
local now = clock()
if length == 0 then
  -- A history with holes is none.
  if meta[3] then
    redis.call('DEL', KEYS[2])
    redis.call('HDEL', KEYS[1], 'age', 'due')
  end
elseif meta[3] ~= ARGV[4] or not due or now >= due or due > now + age then
  local _, oldest = trim(now, age)
  -- Not with each message: what is read is trimmed anyway.
  due = math.max((oldest or now) + age, now + math.ceil(age / 64))
  redis.call('HSET', KEYS[1], 'age', ARGV[4], 'due', text(due))
end
local answer, sentAt, hasWal, isUsed = {epoch}, 3, false, meta[5] or length > 0
for i = 0, drafts - 1 do
  local id, sentMs, place, draft = ARGV[7 + 4 * i], ARGV[8 + 4 * i], ARGV[9 + 4 * i], ARGV[10 + 4 * i]
  local duplicate = false
  if sentMs ~= '' then
    sentAt = sentAt + 1
    duplicate = redis.call('GET', KEYS[sentAt])
  end
  if not duplicate and place ~= '' and wal then
    local of, at = string.match(wal, '^(%S*) (%d+)$')
    local newOf, newAt = string.match(place, '^(%S*) (%d+)$')
    if of == newOf and newAt <= at then duplicate = epoch .. ' ' .. walSeq .. ' ' .. id end
  end
  if duplicate then
    answer[#answer + 1] = duplicate
  else
    seq = seq + 1
    local number = text(seq)
    if length > 0 then
      local added = redis.pcall('XADD', KEYS[2], 'MAXLEN', length, number .. '-0', 't', text(now), 'm', draft)
      if type(added) == 'table' and added.err then
        -- It ends behind the counter: not what was counted.
        redis.call('DEL', KEYS[2])
        redis.call('XADD', KEYS[2], number .. '-0', 't', text(now), 'm', draft)
      end
    end
    if sentMs ~= '' then redis.call('SET', KEYS[sentAt], epoch .. ' ' .. number .. ' ' .. id, 'PX', sentMs) end
    if place ~= '' then wal, walSeq, hasWal = place, number, true end
    local heard = tell(KEYS[3], 'm1 ' .. epoch .. ' ' .. number .. ' ' .. before .. '\\n' .. draft)
    isUsed = isUsed or heard > 0
    answer[#answer + 1] = seq
  end
end
if seq ~= reserved then redis.call('HSET', KEYS[1], 'seq', text(seq)) end
if hasWal then redis.call('HSET', KEYS[1], 'wal', wal, 'walSeq', walSeq) end
if length > 0 then redis.call('PEXPIRE', KEYS[2], ARGV[4]) end
-- Where nobody ever was, nobody knows the number: a topic for each message is soon forgotten.
keep(KEYS[1], math.max(tonumber(isUsed and ARGV[5] or ARGV[6]), length > 0 and age + 3600000 or 0))
return answer`

/** KEYS: meta, log. ARGV: a fresh epoch, the number before its first or '' to begin none, ms for which the counter is kept.
 *  Answers epoch, number, former epochs; nothing where there is no counter. */
export const standingScript = `${openLua}
local epoch, seq, before, fields = open(ARGV[1], ARGV[2] ~= '' and ARGV[2] or nil)
if not epoch then return {} end
if #fields > 0 then write(fields, 'seq', text(seq)) end
if ARGV[2] ~= '' and not redis.call('HGET', KEYS[1], 'used') then redis.call('HSET', KEYS[1], 'used', 1) end
keep(KEYS[1], tonumber(ARGV[3]))
return {epoch, text(seq), before}`

/** Bytes of payloads in one page. */
const maxPageBytes = 4 * 1024 * 1024

/** KEYS: meta, log. ARGV: a fresh epoch, 'after' or 'before', the number or '', most messages.
 *  Answers epoch, number, former epochs, number of the oldest or '', then ID and text of each message, in the order of the range. */
export const readScript = `${openLua}${trimLua}
local epoch, seq, before, fields = open(ARGV[1], nil)
if not epoch then return {} end
if #fields > 0 then write(fields, 'seq', text(seq)) end
local age = tonumber(redis.call('HGET', KEYS[1], 'age') or '')
local oldest = age and trim(clock(), age)
local answer = {epoch, text(seq), before, oldest and text(oldest) or ''}
if not oldest then return answer end
local left, bytes, from = tonumber(ARGV[4]), 0, ARGV[3] ~= '' and '(' .. ARGV[3] .. '-0' or '+'
while left > 0 do
  local count = math.min(left, 50)
  local entries = ARGV[2] == 'after' and redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', count)
    or redis.call('XREVRANGE', KEYS[2], from, '-', 'COUNT', count)
  for _, entry in ipairs(entries) do
    answer[#answer + 1] = entry[1]
    answer[#answer + 1] = entry[2][4]
    bytes = bytes + #entry[2][4]
    if bytes > ${maxPageBytes} then return answer end
    from = '(' .. entry[1]
  end
  if #entries < count then return answer end
  left = left - count
end
return answer`

/** KEYS: metas of channels that are listened to, of one slot. ARGV: ms for which counters are kept. */
export const touchScript = `
for _, key in ipairs(KEYS) do
  local left = redis.call('PTTL', key)
  if left >= 0 and left < tonumber(ARGV[1]) then redis.call('PEXPIRE', key, ARGV[1]) end
end
return 1`

/** KEYS: a name. ARGV: what is published under it. Answers how many clients of that server get it. */
export const probeScript = `${tellLua}
return tell(KEYS[1], ARGV[1])`

/** Digits alone, of equal length: compared as text they are in order. */
export const walPlace = (epoch: string, lsn: bigint, index: number): string =>
  `${epoch} ${String(lsn).padStart(20, '0')}${String(index).padStart(10, '0')}`
