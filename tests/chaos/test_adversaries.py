"""No operation is starved by an adversary that changes the same records and never stops."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from keyguard import Keyguard, KeyguardError
from tests.stores.conftest import make_database

ADVERSARIES = 2


@pytest.mark.campaign("memory", "sqlite", "postgresql", "redis")
@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgresql", "mariadb", "redis"])
def test_every_operation_gets_through(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = "memory://" if kind == "memory" else make_database(kind, request, tmp_path).url
    guard = Keyguard(url, failure_limit=None, store_timeout=60, management_timeout=600)
    guard.migrate()
    guard.organizations.create("acme")
    victims = [guard.keys.issue(organization="acme", name="a", scopes=["admin"]) for _ in range(4)]
    over = threading.Event()
    changes = [0] * ADVERSARIES

    def change_everything(which: int) -> None:
        while not over.is_set():
            for issued in victims:
                try:
                    guard.keys.update(issued.key.id, name=f"{which} {changes[which]}")
                    guard.organizations.update("acme", name=f"{which} {changes[which]}")
                except KeyguardError:  # the key is revoked by now, or the other was faster
                    pass
                changes[which] += 1

    threads = [threading.Thread(target=change_everything, args=[n]) for n in range(ADVERSARIES)]
    for thread in threads:
        thread.start()
    try:
        first, second, third, _ = victims
        guard.keys.issue(organization="acme", name="new")
        guard.keys.update(first.key.id, metadata={"a": "b"})
        rotated = guard.keys.rotate(first.key.id, grace=timedelta(0))
        guard.keys.revoke(second.key.id)
        guard.keys.revoke(rotated.key.id, force=True)
        guard.keys.revoke_family(third.key.family)
        guard.organizations.update("acme", max_key_lifetime=timedelta(days=90))
        guard.organizations.disable("acme")
        guard.organizations.enable("acme")
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert all(changes)
    assert guard.keys.get(first.key.id).metadata == {"a": "b"}
    assert guard.organizations.get("acme").disabled_at is None
    ended = [issued.key.id for issued in victims[:3]]
    assert all(guard.keys.get(key_id).revoked_at is not None for key_id in ended)
    guard.close()
