"""A purge that is killed leaves whole keys and whole entries, and the next one goes on."""

from __future__ import annotations

import os
import random
import select
import signal
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from keyguard import Action, Keyguard
from keyguard.core.keys.audit_deletion import AuditDeletion
from keyguard.core.management import audit_trail, deletion
from keyguard.testing import MovingClock
from tests.chaos.campaign import everything
from tests.stores.conftest import make_database

# `make chaos` asks for more.
KILLS = int(os.environ.get("CHAOS_KILLS", "10"))
START = datetime(2001, 1, 1, tzinfo=UTC)
KEYS = 60
YEAR = timedelta(days=400)


def purge(url: str, out: int) -> None:
    """Delete what is old, in small parts; tell when it begins."""
    deletion._BATCH = 2
    audit_trail.AuditDeletion = partial(AuditDeletion, limit=4)  # type: ignore[misc,assignment]
    with Keyguard(url) as guard:
        guard.keys.list(limit=1)
        os.write(out, b"!")
        guard.keys.delete_ended(ended_for=YEAR)
        guard.audit.delete(older_than=2 * YEAR)
        guard.keys.list(limit=1)


def killed(url: str, seconds: float) -> None:
    """Run a purge in a process, and kill it after a time, if it has not ended by then."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            purge(url, writing)
        finally:
            os._exit(0)
    os.close(writing)
    select.select([reading], [], [])
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.close(reading)
    os.waitpid(child, 0)


def counts(guard: Keyguard) -> Counter[str]:
    """Return how many entries of each action there are, once all that they say is checked."""
    names: dict[str, Any] = {key.id: key for key in everything(guard.keys.list)}
    for search in ("old", "live"):
        found = everything(
            lambda **page: guard.keys.list(organization="acme", search=search, **page)  # noqa: B023
        )
        assert {key.id for key in found} == {k for k, v in names.items() if v.name == search}
    trail = everything(guard.audit.list)
    for entry in trail:
        if entry.action is Action.KEY_DELETED:
            assert entry.subject not in names
    told = [entry.after["entries"] for entry in trail if entry.action is Action.AUDIT_DELETED]
    return Counter([entry.action.value for entry in trail]) + Counter(told=sum(told))


@pytest.mark.timeout(120 + 3 * KILLS)
@pytest.mark.campaign("sqlite")
@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb", "redis"])
def test_a_killed_purge_leaves_whole_keys_and_entries(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = make_database(kind, request, tmp_path).url
    clock = MovingClock(START)
    with Keyguard(url, clock=clock) as guard:
        guard.migrate()
        guard.organizations.create("acme")
        for number in range(KEYS):
            key = guard.keys.issue(organization="acme", name="live" if number % 3 else "old").key
            if number % 3 == 0:
                guard.keys.revoke(key.id)
    live = KEYS - KEYS // 3
    written = 1 + KEYS + KEYS // 3
    rng = random.Random(7)
    for _ in range(KILLS):
        killed(url, rng.uniform(0, 0.06))
        with Keyguard(url) as guard:
            found = counts(guard)
            left = len(everything(guard.keys.list))
        assert left + found["key.deleted"] == KEYS
        kept = sum(found[a] for a in ("organization.created", "key.issued", "key.revoked"))
        assert kept + found["told"] == written
    with Keyguard(url) as guard:
        guard.keys.delete_ended(ended_for=YEAR)
        guard.audit.delete(older_than=2 * YEAR)
        found = counts(guard)
        assert len(everything(guard.keys.list)) == live
    assert (found["key.deleted"], found["told"]) == (KEYS // 3, written - 1)
