"""Deletes old entries of the audit trail, with two scripts for each part of it.

The first returns the entries, which never change, and the time by the server's clock. The second
deletes the old ones. It names each sorted set that it works on, so that a cluster knows them, and
counts only entries that no other call has deleted meanwhile.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import NamedTuple

from keyguard.core.keys.audit import TRAIL
from keyguard.core.keys.audit_deletion import AuditDeletion, AuditPart
from keyguard.stores.redis.durability import Durability
from keyguard.stores.redis.hashes import entry_fields
from keyguard.stores.redis.ports import ScriptPort
from keyguard.stores.redis.scripts import (
    DELETE_ENTRIES,
    LIST_OLDEST,
    Reply,
    list_of,
    store_call,
    text_of,
    texts_of,
)

_OWN_SETS = (f"trail:{TRAIL}", f"owned:{TRAIL}")


class _Entry(NamedTuple):
    """An entry of the trail, as far as its deletion needs it.

    Args:
        at: When it was written; None if nobody can read it.
        sets: The sorted sets that name it.
    """

    at: datetime | None
    sets: tuple[str, ...] = ()


async def delete_old(
    port: ScriptPort, durability: Durability | None, deletion: AuditDeletion
) -> AuditPart:
    """Delete the old entries of a part of the trail, and add an entry that reports it."""
    look = (deletion.after or "", str(deletion.limit))
    seconds, items = list_of(await port.run(store_call(LIST_OLDEST, *look, keys=("audit",))))
    before = deletion.before(datetime.fromtimestamp(int(text_of(seconds)), UTC))
    entries = {text_of(list_of(item)[0]): _entry_from(item) for item in list_of(items)}
    times = [(entry_id, entry.at) for entry_id, entry in entries.items()]
    old, last = deletion.old(times, before), deletion.go_on(times, before)
    if not old or deletion.dry_run:
        return AuditPart(len(old), last)
    steps = {
        "gone": [(entry_id, *entries[entry_id].sets) for entry_id in old],
        "entry": entry_fields(deletion.entry(0, before)),
    }
    sets = dict.fromkeys([*_OWN_SETS, *(name for each in old for name in entries[each].sets)])
    call = store_call(DELETE_ENTRIES, json.dumps(steps), keys=("audit", *sets))
    _, count = list_of(await port.run(call, durability))
    return AuditPart(int(text_of(count)), last)


def _entry_from(item: Reply) -> _Entry:
    try:
        texts = texts_of(list_of(item)[1])
        fields = dict(zip(texts[::2], texts[1::2], strict=True))
        at = datetime.fromisoformat(fields["at"])
        sets = f"trail:{fields['subject']}", f"owned:{fields['organization']}"
    except (KeyError, ValueError):  # the trail's first item, or what keyguard never wrote
        return _Entry(None)
    return _Entry(at if at.tzinfo else None, sets)
