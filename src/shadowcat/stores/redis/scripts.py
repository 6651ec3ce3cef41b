"""What Redis does at one stroke, in Lua: each script is whole or not at all.

A session is a hash: fence, node, record, last, touched, turn, and each stream by its number as "first next bytes
head". The events of a stream are a list beside it, because they are numbered without gaps and let go of at the left.
The keys of a session carry its id in braces, so that they would share a slot of a Redis Cluster; the index, the leases
and the clock would not, which is why a cluster is refused.

Redis may run a command long after its caller gave up and sent another on another connection: what lay in a socket
while Redis stood still is run in any order. So each store numbers what it asks for, and of one session nothing is
done after what was asked for later.

A full Redis (maxmemory) refuses a script at the first command that could make it grow, if nothing was written before.
So what brings data begins with HSET, and is refused whole; and what must get through, because a lease or a takeover
hangs on it, begins with a command that cannot grow.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Script:
    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest())


_SHARED = """
local function text(number) return string.format('%.0f', number) end

local function list_of(session, stream) return session .. ':' .. stream end

local function unpacked(stream)
  local first, next_seq, size, head = string.match(stream, '^(%d+) (%d+) (%d+) (.*)$')
  return tonumber(first), tonumber(next_seq), tonumber(size), head
end

-- The streams in a HGETALL, by number as text.
local function streams_of(fields)
  local found = {}
  for n = 1, #fields, 2 do
    if string.find(fields[n], '^%d') then found[fields[n]] = fields[n + 1] end
  end
  return found
end

local function let_go(session)
  for stream in pairs(streams_of(redis.call('HGETALL', session))) do
    redis.call('UNLINK', list_of(session, stream))
  end
  redis.call('UNLINK', session)
end

local function remember_end(ended, index, id, ended_ms)
  redis.call('ZREM', index, id)
  redis.call('SET', ended, '', 'PX', ended_ms)
end

local function time(clock, at)
  return math.max(tonumber(redis.call('GET', clock) or 0), tonumber(at))
end

local function move_on(clock, at, keep_ms)
  local now = time(clock, at)
  redis.call('PEXPIRE', clock, keep_ms)
  redis.call('SET', clock, text(now), 'PX', keep_ms)
  return now
end

-- Whether this store has been heard with a later turn: "store number".
local function is_overtaken(held, turn)
  if not held then return false end
  local by, number = string.match(turn, '^(%S+) (%d+)$')
  local held_by, held_number = string.match(held, '^(%S+) (%d+)$')
  return by == held_by and tonumber(number) < tonumber(held_number)
end

local function stored(session)
  local held, streams = {}, {}
  local fields = redis.call('HGETALL', session)
  for n = 1, #fields, 2 do held[fields[n]] = fields[n + 1] end
  for stream, packed in pairs(streams_of(fields)) do
    local first, next_seq, _, head = unpacked(packed)
    local events, sizes = redis.call('LRANGE', list_of(session, stream), 0, -1), {}
    if #events ~= next_seq - first then events, first = {}, next_seq end
    for n, event in ipairs(events) do sizes[n] = #event end
    streams[#streams + 1] = {stream, text(first), head, table.concat(sizes, ' '), table.concat(events)}
  end
  return {held.fence, held.record, held.last, streams}
end
"""

WRITE = Script(
    _SHARED
    + """
local session, ended, index, clock = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local at, turn, keep_ms, ended_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local id, fence, is_whole, record_size, streams, dropped, releases, ends, node =
  unpack(cmsgpack.unpack(ARGV[5]), 1, 9)
local bytes = ARGV[6]
local held_fence, last, held_turn = unpack(redis.call('HMGET', session, 'fence', 'last', 'turn'))
held_fence, last = tonumber(held_fence or nil), tonumber(last or 0)

local taken = 0
local function take(size)
  taken = taken + size
  return string.sub(bytes, taken - size + 1, taken)
end

local record = record_size and take(record_size)
for _, change in ipairs(streams) do
  change[4] = take(change[4])
  for n, size in ipairs(change[5]) do change[5][n] = take(size) end
end

local function held_stream(stream)
  local packed = redis.call('HGET', session, text(stream))
  if packed then return unpacked(packed) end
end

-- Whether no event is missing between what is held and what is added. A list that is not what it was written as has
-- been evicted: then too only a whole change can help.
local function fits(stream, first_seq, next_seq)
  local held_first, held_next = held_stream(stream)
  if not held_first then return true end
  if redis.call('LLEN', list_of(session, text(stream))) ~= held_next - held_first then return false end
  return next_seq <= held_next or first_seq >= held_next
end

local function refusal()
  if redis.call('EXISTS', ended) == 1 then return 'ended' end
  if not held_fence then
    if is_whole or ends then return nil end
    return 'missing'
  end
  if fence < held_fence then return 'fenced' end
  if is_overtaken(held_turn, turn) then return redis.error_reply('OVERTAKEN by a later call') end
  if is_whole or ends then return nil end
  if fence > held_fence then return 'missing' end
  for _, change in ipairs(streams) do
    if not fits(change[1], change[2], change[3]) then return 'missing' end
  end
end

local function grows()
  if is_whole or record then return true end
  for _, change in ipairs(streams) do
    if #change[5] > 0 then return true end
  end
end

-- Adds events, the first of which has the number next_seq; those that are held already came twice and are replaced.
local function add(list, first, held_next, next_seq, events)
  local added, fresh = 0, {}
  for n = math.max(1, first - next_seq + 1), #events do
    local seq = next_seq + n - 1
    added = added + #events[n]
    if seq < held_next then
      added = added - #redis.call('LINDEX', list, seq - first)
      redis.call('LSET', list, seq - first, events[n])
    else
      fresh[#fresh + 1] = events[n]
    end
  end
  -- Lua's stack takes some thousands of arguments.
  for n = 1, #fresh, 1000 do
    redis.call('RPUSH', list, unpack(fresh, n, math.min(n + 999, #fresh)))
  end
  return held_next + #fresh, added
end

local function trim(list, first, held_next, first_seq, size)
  if first_seq >= held_next then
    redis.call('UNLINK', list)
    return 0
  end
  for _, event in ipairs(redis.call('LRANGE', list, 0, first_seq - first - 1)) do size = size - #event end
  redis.call('LTRIM', list, first_seq - first, -1)
  return size
end

local function apply(stream, first_seq, next_seq, head, events)
  local name = text(stream)
  local list = list_of(session, name)
  local first, held_next, size = held_stream(stream)
  if not first then first, held_next, size = 1, 1, 0 end
  if next_seq > held_next then
    redis.call('UNLINK', list)
    first, held_next, size = next_seq, next_seq, 0
  end
  local added
  held_next, added = add(list, first, held_next, next_seq, events)
  size = size + added
  if first_seq > first then
    size = trim(list, first, held_next, first_seq, size)
    first, held_next = first_seq, math.max(held_next, first_seq)
  end
  redis.call('HSET', session, name, text(first) .. ' ' .. text(held_next) .. ' ' .. text(size) .. ' ' .. head)
  redis.call('PEXPIRE', list, keep_ms)
  last = math.max(last, stream)
end

local refused = refusal()
if refused then return refused end
if ends then
  let_go(session)
  remember_end(ended, index, id, ended_ms)
  return false
end
if grows() then redis.call('HSET', session, 'fence', text(fence)) else redis.call('PEXPIRE', session, keep_ms) end
if is_whole then let_go(session) end
for _, change in ipairs(streams) do apply(unpack(change, 1, 5)) end
for _, stream in ipairs(dropped) do
  redis.call('HDEL', session, text(stream))
  redis.call('UNLINK', list_of(session, text(stream)))
end
redis.call('HSET', session,
  'fence', text(fence), 'last', text(last), 'turn', turn, 'touched', text(time(clock, at)))
if record or is_whole then redis.call('HSET', session, 'record', record or '') end
if releases then node = '' end
if releases or is_whole or node ~= '' then redis.call('HSET', session, 'node', node) end
redis.call('PEXPIRE', session, keep_ms)
redis.call('ZADD', index, 0, id)
redis.call('PEXPIRE', index, keep_ms)
return false
"""
)

CLAIM = Script(
    _SHARED
    + """
local session, clock = KEYS[1], KEYS[2]
local at, turn, keep_ms, node, leases = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local fence, owner, held_turn = unpack(redis.call('HMGET', session, 'fence', 'node', 'turn'))
if not fence then return false end
if is_overtaken(held_turn, turn) then return redis.error_reply('OVERTAKEN by a later call') end
if owner ~= node and owner ~= '' and redis.call('EXISTS', leases .. owner) == 1 then return owner end
redis.call('PEXPIRE', session, keep_ms)
redis.call('HSET', session,
  'fence', text(fence + 1), 'node', node, 'turn', turn, 'touched', text(time(clock, at)))
for stream in pairs(streams_of(redis.call('HGETALL', session))) do
  redis.call('PEXPIRE', list_of(session, stream), keep_ms)
end
return stored(session)
"""
)

READ = Script(
    _SHARED
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
return stored(KEYS[1])
"""
)

LIST = Script(
    _SHARED
    + """
local index, prefix, limit = KEYS[1], ARGV[2], tonumber(ARGV[3])
local found, from = {}, '(' .. ARGV[1]
while #found < limit do
  local ids = redis.call('ZRANGE', index, from, '+', 'BYLEX', 'LIMIT', 0, limit - #found)
  if #ids == 0 then break end
  for _, id in ipairs(ids) do
    from = '(' .. id
    local fields = redis.call('HGETALL', prefix .. '{' .. id .. '}')
    if #fields == 0 then
      redis.call('ZREM', index, id)
    else
      local held, streams, events, bytes = {}, 0, 0, 0
      for n = 1, #fields, 2 do held[fields[n]] = fields[n + 1] end
      for _, packed in pairs(streams_of(fields)) do
        local first, next_seq, size = unpacked(packed)
        streams, events, bytes = streams + 1, events + next_seq - first, bytes + size
      end
      found[#found + 1] = {id, held.node, held.record, streams, events, bytes}
    end
  end
end
return found
"""
)

REMOVE = Script(
    _SHARED
    + """
local session, ended, index = KEYS[1], KEYS[2], KEYS[3]
if redis.call('EXISTS', session) == 0 then return 0 end
let_go(session)
remember_end(ended, index, ARGV[1], ARGV[2])
return 1
"""
)

RENEW = Script(
    _SHARED
    + """
local lease, clock = KEYS[1], KEYS[2]
local at, keep_ms, lease_ms = ARGV[1], ARGV[2], ARGV[3]
move_on(clock, at, keep_ms)
redis.call('SET', lease, '', 'PX', lease_ms)
"""
)

# Looks at so many sessions after the given one, and returns the last that it looked at.
EXPIRE = Script(
    _SHARED
    + """
local index, clock = KEYS[1], KEYS[2]
local at, keep_ms, idle_ms, prefix, after, limit = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local now = move_on(clock, at, keep_ms)
local ids = redis.call('ZRANGE', index, '(' .. after, '+', 'BYLEX', 'LIMIT', 0, limit)
for _, id in ipairs(ids) do
  local session = prefix .. '{' .. id .. '}'
  local touched = redis.call('HGET', session, 'touched')
  if not touched or tonumber(touched) <= now - idle_ms then
    let_go(session)
    redis.call('ZREM', index, id)
  end
end
return ids[#ids] or false
"""
)
