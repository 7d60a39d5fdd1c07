"""The scripts that run inside Redis: each is one change, or one look-up, whole or not at all.

All that the key store holds lies under ``keyguard:{store}:``, in one slot of a cluster, so that a
script can see to several of its parts at once:

:``schema``: the version of this layout
:``organization:ID``, ``key:ID``: a record, as a hash of its columns; "" stands for None, and so
    does a column that is not there
:``slugs``: a hash from slugs to the ids of organizations
:``organizations``, ``keys``, ``keys:ORGANIZATION``, ``family:FAMILY``: sorted sets of creation
    times and ids
:``ids``: a sorted set of the ids of all keys
:``audit``: the audit trail, a stream. Its first entry says only that the layout was made, so that
    there is always a last one to stand at
:``trail:ID``: a sorted set of the entries about one record; ``owned:ID``: about one organization
    and its keys

A script is told the keys that it is about as far as they are known beforehand: while a slot moves
from one server to another, Redis then answers that it can't tell, and nothing that has not arrived
yet passes for missing.

The record is the commit point. What leads to it (slugs, sorted sets) is written before, and is
worth nothing where there is no record. A script runs alone and is replicated as one transaction;
what could end one amid its work, which is something of another kind under one of its names, it
looks for before it writes.
"""

from __future__ import annotations

from hashlib import sha1

from keyguard.stores.redis.commands import Command
from keyguard.stores.redis.errors import UNFIT

__all__ = [
    "COMMIT",
    "FIND_EXISTING",
    "FIND_KEY",
    "FIND_ORGANIZATION",
    "FIND_SLUG",
    "LIST",
    "LIST_AUDIT",
    "LIST_DIGESTS",
    "LIST_TRAIL",
    "MARK_USED",
    "NEWS",
    "REHASH_KEY",
    "STORE",
    "Call",
    "Script",
]

STORE = "keyguard:{store}:"
"""With which the names of all keys of the key store begin."""


class Script:
    """A text that Redis runs.

    Args:
        text: The text, in Lua.
        writes: Whether it can change something, so that it must not be sent twice.
    """

    __slots__ = ("name", "text", "writes")

    def __init__(self, text: str, *, writes: bool) -> None:
        self.text = text
        self.writes = writes
        self.name = sha1(text.encode(), usedforsecurity=False).hexdigest()


class Call:
    """A script with its keys and arguments.

    Args:
        script: The script.
        keys: The keys that it is about, the first of which says where it runs.
        arguments: What else it is given.

    Attributes:
        by_name: The command that calls it where the server knows it.
    """

    __slots__ = ("arguments", "by_name", "keys", "script")

    def __init__(self, script: Script, keys: tuple[str, ...], arguments: tuple[str, ...]) -> None:
        self.script = script
        self.keys = keys
        self.arguments = arguments
        self.by_name = Command("EVALSHA", script.name, len(keys), *keys, *arguments)

    def in_full(self) -> Command:
        """Return the command that calls it anywhere."""
        return Command("EVAL", self.script.text, *self.by_name.parts[2:])


_START = f"""
local STORE = 'keyguard:{{store}}:'
local found = redis.call('GET', KEYS[1])
if found ~= ARGV[1] then
  return redis.error_reply('{UNFIT} ' .. (found or 'none'))
end
"""

# How an entry of the trail is named in sorted sets: of one length, so that the order of the bytes
# is that of the stream.
_NAMES = """
local function padded(id)
  local ms, number = string.match(id, '^(%d+)-(%d+)$')
  return string.rep('0', 20 - #ms) .. ms .. '-' .. string.rep('0', 20 - #number) .. number
end
local function plain(name)
  local ms, number = string.match(name, '^0*(%d+)-0*(%d+)$')
  return ms .. '-' .. number
end
"""

# KEYS: audit, slugs, those that must be sorted sets..., records and what entries are listed in...
# Arguments, one list after the other, each after its length; K is the number of a key:
#   number of the last key that must be a sorted set
#   expected: K, version
#   new organizations: K, id, slug
#   new keys: K, id
#   entries: K of the record's trail, K of the organization's, number of columns, columns...
#   writes: command, K, number of arguments, arguments...
COMMIT = Script(
    _START
    + _NAMES
    + """
local at = 2
local function text()
  at = at + 1
  return ARGV[at - 1]
end
local function number() return tonumber(text()) end
local function key() return KEYS[number()] end
local function list()
  local size = number()
  at = at + size
  return unpack(ARGV, at - size, at - 1)
end

redis.call('XLEN', KEYS[2])
redis.call('HLEN', KEYS[3])
for place = 4, number() do
  redis.call('ZCARD', KEYS[place])
end
for _ = 1, number() do
  local record, version = key(), text()
  local found = redis.call('HMGET', record, 'id', 'version')
  if not found[1] or (found[2] or '1') ~= version then
    return {'conflict'}
  end
end
for _ = 1, number() do
  local record, id, slug = key(), text(), text()
  local holder = redis.call('HGET', KEYS[3], slug)
  if holder and redis.call('EXISTS', STORE .. 'organization:' .. holder) == 1 then
    return {'organization', slug}
  end
  if redis.call('EXISTS', record) == 1 then
    return {'organization', id}
  end
end
for _ = 1, number() do
  local record, id = key(), text()
  if redis.call('EXISTS', record) == 1 then
    return {'key', id}
  end
end
-- First what can fail though all keys are of their types: a stream may have given its last id.
for _ = 1, number() do
  local trail, owned = key(), key()
  local name = padded(redis.call('XADD', KEYS[2], '*', list()))
  redis.call('ZADD', trail, 0, name)
  redis.call('ZADD', owned, 0, name)
end
for _ = 1, number() do
  local command, name = text(), key()
  redis.call(command, name, list())
end
return {'done'}
""",
    writes=True,
)

# KEYS: slugs; slug
FIND_SLUG = Script(_START + "return redis.call('HGET', KEYS[2], ARGV[2])", writes=False)

# KEYS: organization
FIND_ORGANIZATION = Script(_START + "return redis.call('HGETALL', KEYS[2])", writes=False)

# KEYS: key
FIND_KEY = Script(
    _START
    + """
local key = redis.call('HGETALL', KEYS[2])
if #key == 0 then
  return false
end
local owner = redis.call('HGET', KEYS[2], 'organization') or ''
return {key, redis.call('HGETALL', STORE .. 'organization:' .. owner)}
""",
    writes=False,
)

# KEYS: keys...; returns the numbers of those that are there
FIND_EXISTING = Script(
    _START
    + """
local there = {}
for place = 2, #KEYS do
  if redis.call('EXISTS', KEYS[place]) == 1 then
    there[#there + 1] = place - 2
  end
end
return there
""",
    writes=False,
)

# KEYS: index, record after which to start if any
# Arguments: kind of record, how many to return, how many to look at, entry after which to start,
# id of their only owner, times of a filter; "" for what there is none of.
# What the filter surely does not admit is left out here, for there may be much of it; the filter
# itself has the last word on the rest. Times are texts of one form, in whose order they are.
LIST = Script(
    _START
    + """
local records, most, look, last = STORE .. ARGV[2] .. ':', tonumber(ARGV[3]), ARGV[4], ARGV[5]
local owner, ends_before, unused_since, alive_at = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
if KEYS[3] then
  local created, id, owned_by = unpack(
    redis.call('HMGET', KEYS[3], 'created_at', 'id', 'organization'))
  if not created or (owner ~= '' and owned_by ~= owner) then
    return {'', {}}
  end
  last = created .. ' ' .. id
end
local is_filtered = ends_before ~= '' or unused_since ~= '' or alive_at ~= ''

local function may_be_admitted(record)
  local revoked, ends, grace_ends, used, created = unpack(redis.call(
    'HMGET', record, 'revoked_at', 'expires_at', 'grace_ends_at', 'last_used_at', 'created_at'))
  ends = ends or ''
  if grace_ends and grace_ends ~= '' and (ends == '' or grace_ends < ends) then
    ends = grace_ends
  end
  if alive_at ~= '' and ((revoked or '') ~= '' or (ends ~= '' and ends <= alive_at)) then
    return false
  end
  if ends_before ~= '' and (ends == '' or ends >= ends_before) then
    return false
  end
  if not used or used == '' then
    used = created or ''
  end
  return unused_since == '' or used < unused_since
end

local rows, start = {}, last == '' and '-' or '(' .. last
local entries = redis.call('ZRANGEBYLEX', KEYS[2], start, '+', 'LIMIT', 0, look)
for place, entry in ipairs(entries) do
  local record = records .. string.match(entry, ' (.*)$')
  if not is_filtered or may_be_admitted(record) then
    rows[#rows + 1] = redis.call('HGETALL', record)
    if #rows == most and place < #entries then
      return {entry, rows}
    end
  end
end
return {#entries == tonumber(look) and entries[#entries] or '', rows}
""",
    writes=False,
)

# KEYS: ids; id after which to start, how many to look at
LIST_DIGESTS = Script(
    _START
    + """
local start = ARGV[2] == '' and '-' or '(' .. ARGV[2]
local ids = redis.call('ZRANGEBYLEX', KEYS[2], start, '+', 'LIMIT', 0, ARGV[3])
local rows = {}
for _, id in ipairs(ids) do
  local found = redis.call('HMGET', STORE .. 'key:' .. id, 'revoked_at', 'digest')
  if found[1] == '' and found[2] then
    rows[#rows + 1] = {id, found[2]}
  end
end
return {#ids == tonumber(ARGV[3]) and ids[#ids] or '', rows}
""",
    writes=False,
)

# KEYS: key; old digest, new digest
REHASH_KEY = Script(
    _START
    + """
if redis.call('HGET', KEYS[2], 'digest') == ARGV[2] then
  redis.call('HSET', KEYS[2], 'digest', ARGV[3])
end
return 1
""",
    writes=True,
)

# KEYS: keys...; time and address of each
MARK_USED = Script(
    _START
    + """
for place = 2, #KEYS do
  local at, address = ARGV[place * 2 - 2], ARGV[place * 2 - 1]
  local found = redis.call('HMGET', KEYS[place], 'id', 'last_used_at')
  if found[1] and (not found[2] or found[2] == '' or found[2] < at) then
    redis.call('HSET', KEYS[place], 'last_used_at', at, 'last_used_address', address)
  end
end
return 1
""",
    writes=True,
)

# KEYS: audit; id before which to start or "", how many
LIST_AUDIT = Script(
    _START
    + """
local start = ARGV[2] == '' and '+' or '(' .. ARGV[2]
return redis.call('XREVRANGE', KEYS[2], start, '-', 'COUNT', ARGV[3])
""",
    writes=False,
)

# KEYS: audit, trail; likewise
LIST_TRAIL = Script(
    _START
    + _NAMES
    + """
local start = ARGV[2] == '' and '+' or '(' .. padded(ARGV[2])
local rows = {}
for _, name in ipairs(redis.call('ZREVRANGEBYLEX', KEYS[3], start, '-', 'LIMIT', 0, ARGV[3])) do
  local id = plain(name)
  rows[#rows + 1] = redis.call('XRANGE', KEYS[2], id, id)[1] or {id, {}}
end
return rows
""",
    writes=False,
)

# KEYS: audit; position or "", how many. Returns where the reader stands then, and the ids of what
# changed; or false for these where the entry at the position is gone: then the trail is another
# one, restored from a backup or promoted before it had arrived, and nobody knows what is missing.
NEWS = Script(
    _START
    + """
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local stop = last and last[1] or '0-0'
if ARGV[2] == '' or ARGV[2] == stop then
  return {stop, {}, 1}
end
if #redis.call('XRANGE', KEYS[2], ARGV[2], ARGV[2]) == 0 then
  return {stop, false, 1}
end
local final, subjects, seen = stop, {}, {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '(' .. ARGV[2], '+', 'COUNT', ARGV[3])) do
  stop = entry[1]
  for place = 1, #entry[2], 2 do
    local subject = entry[2][place + 1]
    if entry[2][place] == 'subject' and not seen[subject] then
      seen[subject] = true
      subjects[#subjects + 1] = subject
    end
  end
end
return {stop, subjects, stop == final and 1 or 0}
""",
    writes=False,
)
