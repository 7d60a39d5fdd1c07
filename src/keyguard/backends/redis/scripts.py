"""The scripts that run inside Redis: each is one change, or one look-up, whole or not at all.

All that the key store holds lies under ``keyguard:{store}:``, in one slot of a cluster, so that a
script can see to several of its parts at once:

:``schema``: the version of this layout
:``organization:ID``, ``key:ID``: a record, as a hash of its columns; "" stands for None
:``slugs``: a hash from slugs to the ids of organizations
:``organizations``, ``keys``, ``keys:ORGANIZATION``: sorted sets of creation times and ids

A script is told the keys that it is about as far as they are known beforehand: while a slot moves
from one server to another, Redis then answers that it can't tell, and nothing that has not arrived
yet passes for missing.

The record is the commit point. What leads to it (slugs, sorted sets) is written before, and is
worth nothing where there is no record. A script runs alone and is replicated as one transaction;
still, one that ends amid its work leaves nothing half done behind.
"""

from __future__ import annotations

from hashlib import sha1
from typing import NamedTuple

from keyguard.backends.redis.errors import UNFIT

__all__ = [
    "ADD_KEY",
    "ADD_ORGANIZATION",
    "CHANGE_KEY",
    "CHANGE_ORGANIZATION",
    "DISABLE_ORGANIZATION",
    "FIND_KEY",
    "FIND_ORGANIZATION",
    "FIND_SLUG",
    "LIST",
    "MIGRATE",
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


class Call(NamedTuple):
    """A script with its keys and arguments.

    Args:
        script: The script.
        keys: The keys that it is about, the first of which says where it runs.
        arguments: What else it is given.
    """

    script: Script
    keys: tuple[str, ...]
    arguments: tuple[str, ...]


_START = f"""
local STORE = 'keyguard:{{store}}:'
local found = redis.call('GET', KEYS[1])
if found ~= ARGV[1] then
  return redis.error_reply('{UNFIT} ' .. (found or 'none'))
end
"""

MIGRATE = Script(
    f"""
local found = redis.call('GET', KEYS[1])
if not found then
  redis.call('SET', KEYS[1], ARGV[1])
elseif found ~= ARGV[1] then
  return redis.error_reply('{UNFIT} ' .. found)
end
return 1
""",
    writes=True,
)

# KEYS: organization, slugs, organizations; id, slug, entry, columns...
ADD_ORGANIZATION = Script(
    _START
    + """
local id, slug = ARGV[2], ARGV[3]
local holder = redis.call('HGET', KEYS[3], slug)
if holder and redis.call('EXISTS', STORE .. 'organization:' .. holder) == 1 then
  return 'slug'
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 'id'
end
redis.call('HSET', KEYS[3], slug, id)
redis.call('ZADD', KEYS[4], 0, ARGV[4])
redis.call('HSET', KEYS[2], unpack(ARGV, 5))
return 'added'
""",
    writes=True,
)

# KEYS: slugs; slug
FIND_SLUG = Script(_START + "return redis.call('HGET', KEYS[2], ARGV[2])", writes=False)

# KEYS: organization
FIND_ORGANIZATION = Script(_START + "return redis.call('HGETALL', KEYS[2])", writes=False)

# KEYS: organization; columns...
CHANGE_ORGANIZATION = Script(
    _START
    + """
if redis.call('EXISTS', KEYS[2]) == 1 and #ARGV > 1 then
  redis.call('HSET', KEYS[2], unpack(ARGV, 2))
end
return redis.call('HGETALL', KEYS[2])
""",
    writes=True,
)

# KEYS: organization; time or ""
DISABLE_ORGANIZATION = Script(
    _START
    + """
local since = redis.call('HGET', KEYS[2], 'disabled_at')
if since and (ARGV[2] == '' or since == '') then
  redis.call('HSET', KEYS[2], 'disabled_at', ARGV[2])
end
return redis.call('HGETALL', KEYS[2])
""",
    writes=True,
)

# KEYS: key, organization, keys, keys of the organization; entry, columns...
ADD_KEY = Script(
    _START
    + """
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 'id'
end
if redis.call('EXISTS', KEYS[3]) == 0 then
  return 'organization'
end
redis.call('ZADD', KEYS[4], 0, ARGV[2])
redis.call('ZADD', KEYS[5], 0, ARGV[2])
redis.call('HSET', KEYS[2], unpack(ARGV, 3))
return 'added'
""",
    writes=True,
)

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

# KEYS: key; columns...
CHANGE_KEY = Script(
    _START
    + """
if redis.call('HGET', KEYS[2], 'revoked_at') == '' and #ARGV > 1 then
  redis.call('HSET', KEYS[2], unpack(ARGV, 2))
end
return redis.call('HGETALL', KEYS[2])
""",
    writes=True,
)

# KEYS: index; kind of record, number, id after which to start or "", entry likewise
LIST = Script(
    _START
    + """
local records, number, after, last = STORE .. ARGV[2] .. ':', ARGV[3], ARGV[4], ARGV[5]
if after ~= '' then
  local created = redis.call('HGET', records .. after, 'created_at')
  last = created and (created .. ' ' .. after)
  if not last or not redis.call('ZSCORE', KEYS[2], last) then
    return {}
  end
end
local start = last == '' and '-' or '(' .. last
local rows = {}
for _, entry in ipairs(redis.call('ZRANGEBYLEX', KEYS[2], start, '+', 'LIMIT', 0, number)) do
  local id = string.match(entry, ' (.*)$')
  rows[#rows + 1] = {entry, redis.call('HGETALL', records .. id)}
end
return rows
""",
    writes=False,
)
