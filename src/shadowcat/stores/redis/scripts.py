"""What Redis does atomically, in Lua: each script runs whole or not at all.

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

local function time(clock, at)
  return math.max(tonumber(redis.call('GET', clock) or 0), tonumber(at))
end

local function move_on(clock, at, keep_ms)
  local now = time(clock, at)
  redis.call('PEXPIRE', clock, keep_ms)
  redis.call('SET', clock, text(now), 'PX', keep_ms)
  return now
end

-- Redis's clock may be set, so it keeps this three times as long as it counts.
local function remember_end(ended, index, clock, id, at, ended_ms)
  redis.call('ZREM', index, id)
  redis.call('SET', ended, text(time(clock, at)), 'PX', ended_ms * 3)
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
local at, turn, keep_ms, ended_ms, bytes = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6]
local id, fence, is_whole, record_size, streams, dropped, releases, ends, node =
  unpack(cmsgpack.unpack(ARGV[5]), 1, 9)
local held_fence, last, owner, held_turn = unpack(redis.call('HMGET', session, 'fence', 'last', 'node', 'turn'))
held_fence, last = tonumber(held_fence or nil), tonumber(last or 0)
local now = time(clock, at)

local taken = 0
local function take(size)
  taken = taken + size
  return string.sub(bytes, taken - size + 1, taken)
end

local function refusal()
  local ended_at = redis.call('GET', ended)
  if ended_at and now - ended_at < tonumber(ended_ms) then return 'ended' end
  if not held_fence then
    if is_whole or ends then return nil end
    return 'missing'
  end
  if fence < held_fence then return 'fenced' end
  if is_overtaken(held_turn, turn) then return redis.error_reply('OVERTAKEN by a later call') end
  if fence > held_fence and not is_whole and not ends then return 'missing' end
end

-- What is to be done about a stream, or nothing where events are missing between what is held and what is added. A
-- list that is not as long as it was written has been evicted: then too only a whole change can help.
local function plan(stream, first_seq, next_seq, head_size, sizes)
  local name, head = text(stream), take(head_size)
  local list, cut, added = list_of(session, name), 0, {}
  local first, held_next, size = 1, 1, 0
  local held = not is_whole and redis.call('HGET', session, name)
  if held then
    first, held_next, size = unpacked(held)
    if redis.call('LLEN', list) ~= held_next - first then return nil end
    if next_seq > held_next and first_seq < held_next then return nil end
  end
  local from = math.max(held_next, first_seq, next_seq)
  if from > held_next then
    cut, size = held_next - first, 0
  elseif first_seq > first then
    cut = first_seq - first
    for _, event in ipairs(redis.call('LRANGE', list, 0, cut - 1)) do size = size - #event end
  end
  -- Those before are held, because nobody knew that this change had been made, or let go of at once.
  for n, event_size in ipairs(sizes) do
    local event = take(event_size)
    if next_seq + n > from then
      added[#added + 1] = event
      size = size + event_size
    end
  end
  first = from > held_next and math.max(first_seq, next_seq) or math.max(first, first_seq)
  held_next = math.max(first, held_next, next_seq + #sizes)
  return {
    name = name, list = list, cut = cut, added = added,
    packed = text(first) .. ' ' .. text(held_next) .. ' ' .. text(size) .. ' ' .. head,
  }
end

-- Lua's stack takes some thousands of values.
local function in_pieces(command, key, values)
  for n = 1, #values, 1000 do redis.call(command, key, unpack(values, n, math.min(n + 999, #values))) end
end

local refused = refusal()
if refused then return refused end
if ends then
  let_go(session)
  remember_end(ended, index, clock, id, at, ended_ms)
  return false
end

if node == '' then node = owner or '' end
if releases then node = '' end
local fields = {'fence', text(fence), 'node', node, 'turn', turn, 'touched', text(now)}
local function set(name, value) fields[#fields + 1], fields[#fields + 2] = name, value end

local grows = is_whole or record_size
if record_size or is_whole then set('record', take(record_size or 0)) end
local plans = {}
for n, change in ipairs(streams) do
  plans[n] = plan(unpack(change, 1, 5))
  if not plans[n] then return 'missing' end
  grows = grows or #plans[n].added > 0
  last = math.max(last, change[1])
  set(plans[n].name, plans[n].packed)
end
set('last', text(last))

if not grows then redis.call('PEXPIRE', session, keep_ms) end
if is_whole then
  redis.call('ZADD', index, 0, id)
  redis.call('PEXPIRE', index, keep_ms)
  let_go(session)
end
in_pieces('HSET', session, fields)
redis.call('PEXPIRE', session, keep_ms)
for _, planned in ipairs(plans) do
  if planned.cut > 0 then redis.call('LTRIM', planned.list, planned.cut, -1) end
  in_pieces('RPUSH', planned.list, planned.added)
  redis.call('PEXPIRE', planned.list, keep_ms)
end
for _, stream in ipairs(dropped) do
  redis.call('HDEL', session, text(stream))
  redis.call('UNLINK', list_of(session, text(stream)))
end
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
local session, ended, index, clock = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, at, ended_ms, removed = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local owner = redis.call('HGET', session, 'node')
if not owner then return 0 end
let_go(session)
remember_end(ended, index, clock, id, at, ended_ms)
if owner ~= '' then
  redis.call('RPUSH', removed .. owner, id)
  redis.call('LTRIM', removed .. owner, -1000, -1)
  redis.call('PEXPIRE', removed .. owner, ended_ms)
end
return 1
"""
)

REMOVED = Script(
    """
local ids = redis.call('LRANGE', KEYS[1], 0, -1)
redis.call('UNLINK', KEYS[1])
return ids
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
redis.call('PEXPIRE', index, keep_ms)
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
