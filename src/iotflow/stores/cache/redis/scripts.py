"""What Redis runs in one go. All keys of a call share a slot.

A latest entry is a hash: measurement -> JSON [timestamp_ms, value, type, unit, written_us], and
fields that no measurement can be called, as names begin with a letter: `#n` the fill's ticket,
`#e` the epoch in which the fill began, `#x` when it ends at the latest; an entry is complete
once it has that one. Values are never encoded anew in Lua, whose numbers are doubles: marks
and times fit (below 2^53), 64-bit values do not.
"""

from hashlib import sha1
from typing import NamedTuple


class Script(NamedTuple):
    source: str
    sha: str


def _script(source: str) -> Script:
    # Redis names scripts so; nothing is secured by it.
    return Script(source, sha1(source.encode(), usedforsecurity=False).hexdigest())


# A call in Lua takes some thousand arguments at most.
_MERGE = r"""
local function newer(made, held)
  local made_ms, held_ms = string.match(made, '^%[(%-?%d+)'), string.match(held, '^%[(%-?%d+)')
  if made_ms ~= held_ms then return tonumber(made_ms) > tonumber(held_ms) end
  return tonumber(string.match(made, '(%d+)%]$')) > tonumber(string.match(held, '(%d+)%]$'))
end
local function merge_some(key, first, last)
  local names, taken = {}, {}
  for i = first, last, 2 do names[#names + 1] = ARGV[i] end
  local held = redis.call('HMGET', key, unpack(names))
  for n = 1, #names do
    local made = ARGV[first + n * 2 - 1]
    if not held[n] or newer(made, held[n]) then
      taken[#taken + 1] = names[n]
      taken[#taken + 1] = made
    end
  end
  if #taken > 0 then redis.call('HSET', key, unpack(taken)) end
end
local function merge(key, first, last)
  for from = first, last, 1000 do merge_some(key, from, math.min(from + 999, last)) end
end
"""

_COUNT = r"""
local function count(key, first, last, now_s, counts)
  local fields, seen, changed, longest = {}, {}, {}, 0
  for i = first, last, 3 do fields[#fields + 1] = ARGV[i] end
  local held = redis.call('HMGET', key, unpack(fields))
  for n = 1, #fields do
    local field, cost = fields[n], ARGV[first + n * 3 - 1]
    local window = tonumber(ARGV[first + n * 3 - 2])
    local bucket = math.floor(now_s / window)
    local was, previous, current = string.match(
      seen[field] or held[n] or '', '^(%d+) (%d+) (%d+)$')
    was, previous, current = tonumber(was), tonumber(previous) or 0, tonumber(current) or 0
    if was ~= bucket then
      previous = was == bucket - 1 and current or 0
      current = 0
    end
    current = current + tonumber(cost)
    counts[#counts + 1] = previous
    counts[#counts + 1] = current
    if cost ~= '0' then
      seen[field] = string.format('%.0f %.0f %.0f', bucket, previous, current)
      changed[#changed + 1] = field
      changed[#changed + 1] = seen[field]
      longest = math.max(longest, window)
    end
  end
  if #changed > 0 then
    redis.call('HSET', key, unpack(changed))
    if redis.call('TTL', key) < longest * 2 then redis.call('EXPIRE', key, longest * 3) end
  end
end
"""

_NOW = r"""
local time = redis.call('TIME')
local now_s = tonumber(time[1])
local now_ms = now_s * 1000 + math.floor(tonumber(time[2]) / 1000)
"""

# KEYS: latest, guard, online, counters.
# ARGV: written_us, online_ms, latest_ms, the last index of points, points, hits.
# Answers {now_ms, previous, current, ...}, or 0 without hits.
RECORD = _script(
    _MERGE
    + _COUNT
    + _NOW
    + r"""
redis.call('SET', KEYS[3], '1', 'PX', ARGV[2])
local guard = redis.call('GET', KEYS[2])
if guard and tonumber(ARGV[1]) < tonumber(guard) then
  redis.call('UNLINK', KEYS[1])
else
  local entry = redis.call('HMGET', KEYS[1], '#n', '#x')
  if entry[1] then
    merge(KEYS[1], 5, tonumber(ARGV[4]))
    if entry[2] then
      local left_ms = math.min(tonumber(ARGV[3]), tonumber(entry[2]) - now_ms)
      redis.call('PEXPIRE', KEYS[1], string.format('%.0f', left_ms))
    end
  end
end
local first = tonumber(ARGV[4]) + 1
if first > #ARGV then return 0 end
local counts = {now_ms}
count(KEYS[4], first, #ARGV, now_s, counts)
return counts
"""
)

# KEYS: counters. ARGV: hits. Answers as RECORD.
COUNT = _script(
    _COUNT
    + _NOW
    + r"""
local counts = {now_ms}
count(KEYS[1], 1, #ARGV, now_s, counts)
return counts
"""
)

# KEYS: latest. ARGV: a new ticket, epoch, latest_ms. Answers the ticket that holds.
BEGIN_FILL = _script(r"""
local entry = redis.call('HMGET', KEYS[1], '#n', '#e', '#x')
if entry[1] and entry[2] == ARGV[2] then
  if not entry[3] then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
  return entry[1]
end
redis.call('UNLINK', KEYS[1])
redis.call('HSET', KEYS[1], '#n', ARGV[1], '#e', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return ARGV[1]
""")

# KEYS: latest. ARGV: ticket, latest_ms, latest_max_ms, points. Answers whether the ticket held.
FILL = _script(
    _MERGE
    + _NOW
    + r"""
if redis.call('HGET', KEYS[1], '#n') ~= ARGV[1] then return 0 end
merge(KEYS[1], 4, #ARGV)
redis.call('HSET', KEYS[1], '#x', string.format('%.0f', now_ms + tonumber(ARGV[3])))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
)

# KEYS: latest, guard. ARGV: written_us (0 leaves no guard), guard_ms.
DROP = _script(r"""
redis.call('UNLINK', KEYS[1])
if ARGV[1] == '0' then return 1 end
local guard = redis.call('GET', KEYS[2])
if guard and tonumber(guard) > tonumber(ARGV[1]) then
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
else
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
end
return 1
""")

# KEYS: the key. ARGV: what an entry of this epoch begins with, the rest of it, its life in ms.
FILL_KEY = _script(r"""
local held = redis.call('GET', KEYS[1])
if held and (held == 'revoked' or held == 'forgotten'
    or string.sub(held, 1, #ARGV[1]) == ARGV[1]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
return 1
""")

# KEYS: the key. ARGV: the hold's life in ms.
FORGET_KEY = _script(r"""
if redis.call('GET', KEYS[1]) ~= 'revoked' then
  redis.call('SET', KEYS[1], 'forgotten', 'PX', ARGV[1])
elseif redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return 1
""")

# KEYS: the log, perhaps the device's set of logs. ARGV: window_us, cost, limit, a word that no
# other call has, window_s. Answers {count, microseconds until the oldest leaves}.
LOG = _script(r"""
local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local window_us = tonumber(ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now_us - window_us))
local held = redis.call('ZCARD', KEYS[1])
local added = math.min(tonumber(ARGV[2]), math.max(0, tonumber(ARGV[3]) - held))
for n = 1, added do
  redis.call('ZADD', KEYS[1], string.format('%.0f', now_us), ARGV[4] .. ':' .. n)
end
if added > 0 then
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', window_us / 1000 + 1000))
  if KEYS[2] then
    redis.call('SADD', KEYS[2], KEYS[1])
    if redis.call('TTL', KEYS[2]) < tonumber(ARGV[5]) + 1 then
      redis.call('EXPIRE', KEYS[2], tonumber(ARGV[5]) + 1)
    end
  end
end
if held + added == 0 then return {0, 0} end
local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {held + added, math.max(0, tonumber(oldest[2]) + window_us - now_us)}
""")

ALL = (RECORD, COUNT, BEGIN_FILL, FILL, DROP, FILL_KEY, FORGET_KEY, LOG)
