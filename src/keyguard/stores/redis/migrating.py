"""How the store is made, and how one of an older layout is brought up to date.

Version 1 had neither families nor ids nor a trail, and whoever revoked a key gave a reason in words
of their own. It becomes version 2 in steps, each of which may be done twice, so that several
processes may do them at once, and be killed amid them: while they do, the store is of a version of
its own that no keyguard reads or writes, and so nothing is added behind their back. Columns that
are missing are read as None, so no record is written again for their sake.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeAlias

from keyguard.core.keys.records import RevocationReason
from keyguard.core.keys.values import FAMILY_ID
from keyguard.core.tokens.format import KEY_ID
from keyguard.stores.redis.errors import AMID_MIGRATION, UNFIT
from keyguard.stores.redis.records import text_of
from keyguard.stores.redis.scripts import STORE, Call, Script

__all__ = ["VERSION", "migrate"]

VERSION = "2"
"""The version of the layout."""

_BATCH = 500

Steps: TypeAlias = Generator[Call, Any, Any]

# KEYS: schema, audit; version, amid, versions that can be brought up...
# It returns nothing where nothing is to be brought up.
_BEGIN = Script(
    f"""
local found = redis.call('GET', KEYS[1])
if not found then
  redis.call('XADD', KEYS[2], '*', 'made', ARGV[1])
  redis.call('SET', KEYS[1], ARGV[1])
  return false
end
if found == ARGV[1] then
  return false
end
for place = 3, #ARGV do
  if found == ARGV[place] then
    redis.call('SET', KEYS[1], ARGV[2])
    found = ARGV[2]
  end
end
if found ~= ARGV[2] then
  return redis.error_reply('{UNFIT} ' .. found)
end
return 1
""",
    writes=True,
)

# All that follows does nothing once another process has come to the end.
_AMID = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return false
end
"""

# KEYS: schema, keys; amid, entry after which to start, how many
_ENTRIES = Script(
    _AMID
    + """
local start = ARGV[2] == '' and '-' or '(' .. ARGV[2]
return redis.call('ZRANGEBYLEX', KEYS[2], start, '+', 'LIMIT', 0, ARGV[3])
""",
    writes=False,
)

# KEYS: schema, records...; amid
_FAMILIES = Script(
    _AMID
    + """
local families = {}
for place = 2, #KEYS do
  families[#families + 1] = redis.call('HGET', KEYS[place], 'family') or ''
end
return families
""",
    writes=False,
)

# KEYS: schema, ids, record and family of each...; amid, reason, id and entry of each...
_BRING_UP = Script(
    _AMID
    + """
for place = 3, #KEYS, 2 do
  local record, family, id, entry = KEYS[place], KEYS[place + 1], ARGV[place], ARGV[place + 1]
  redis.call('ZADD', KEYS[2], 0, id)
  redis.call('ZADD', family, 0, entry)
  local revoked, reason, note = unpack(
    redis.call('HMGET', record, 'revoked_at', 'revoked_reason', 'revoked_note'))
  if revoked and revoked ~= '' and not note then
    redis.call('HSET', record, 'revoked_reason', ARGV[2], 'revoked_note', reason or '')
  end
end
return 1
""",
    writes=True,
)

# KEYS: schema, audit; amid, version
_END = Script(
    _AMID
    + """
redis.call('XADD', KEYS[2], '*', 'made', ARGV[2])
redis.call('SET', KEYS[1], ARGV[2])
return 1
""",
    writes=True,
)


def migrate() -> Steps:
    """Make the store, or bring it up to date."""
    begun = yield _call(_BEGIN, VERSION, AMID_MIGRATION, "1", keys=("audit",))
    if begun is None:
        return
    last = ""
    while True:
        reply = yield _call(_ENTRIES, AMID_MIGRATION, last, str(_BATCH), keys=("keys",))
        if reply is None:
            return
        entries = [text_of(entry) for entry in reply]
        yield from _bring_up({entry.rpartition(" ")[2]: entry for entry in entries})
        if len(entries) < _BATCH:
            break
        last = entries[-1]
    yield _call(_END, AMID_MIGRATION, VERSION, keys=("audit",))


def _bring_up(entries: dict[str, str]) -> Steps:
    ids = [key_id for key_id in entries if KEY_ID.match(key_id)]
    if not ids:
        return
    records = tuple(f"key:{key_id}" for key_id in ids)
    reply = yield _call(_FAMILIES, AMID_MIGRATION, keys=records)
    if reply is None:
        return
    families = [text_of(family) for family in reply]
    keys, arguments = ["ids"], [AMID_MIGRATION, RevocationReason.UNSPECIFIED.value]
    for key_id, record, family in zip(ids, records, families, strict=True):
        # What a crash left in an index without a record has none.
        if FAMILY_ID.match(family):
            keys += [record, f"family:{family}"]
            arguments += [key_id, entries[key_id]]
    yield _call(_BRING_UP, *arguments, keys=tuple(keys))


def _call(script: Script, *arguments: str, keys: tuple[str, ...]) -> Call:
    return Call(script, tuple(f"{STORE}{key}" for key in ("schema", *keys)), arguments)
