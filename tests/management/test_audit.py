"""The audit trail: who did what to whom, in the transaction that did it, and never a secret."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from keyguard import (
    Action,
    InvalidValueError,
    IssuedKey,
    Limit,
    NotFoundError,
    StoreUnavailableError,
)
from keyguard.core.keys.records import fields_of
from tests.stored import Stored

HOUR = timedelta(hours=1)
ROW = {"organization": "acme", "name": "old", "format": "drf"}
IMPORTED = "AbCdEfGh.q7Zp0Lw3Vn8XcT5bRy2Kd9Hs6Jf4Mg1A"


def changed(stored: Stored, operation: Callable[[], Any]) -> list[Any]:
    """Return the entries that an operation added."""
    before = len(stored.trail())
    operation()
    return stored.trail()[before:]


def test_every_change_says_who_what_whom_before_and_after(stored: Stored) -> None:
    guard, now = stored.guard, stored.clock.now
    at = now.isoformat().replace("+00:00", "Z")
    issued = stored.issue("inference:read")
    key_id = issued.key.id

    (entry,) = changed(
        stored,
        lambda: guard.keys.update(
            key_id, scopes=["analytics:read"], limits=[Limit("own", "5/minute")], actor="ada"
        ),
    )
    assert (entry.at, entry.actor, entry.action) == (now, "ada", Action.KEY_UPDATED)
    assert (entry.subject, entry.organization) == (key_id, stored.acme.id)
    assert entry.before == {"scopes": ["inference:read"], "limits": []}
    assert entry.after["scopes"] == ["analytics:read"]
    assert [limit["name"] for limit in entry.after["limits"]] == ["own"]

    (entry,) = changed(
        stored, lambda: guard.keys.revoke(key_id, reason="superseded", note="by hand", force=True)
    )
    assert (entry.actor, entry.action) == ("service", Action.KEY_REVOKED)
    assert entry.before == {"revoked_at": None, "revoked_reason": None, "revoked_note": None}
    assert entry.after == {
        "revoked_at": at,
        "revoked_reason": "superseded",
        "revoked_note": "by hand",
    }

    (entry,) = changed(stored, lambda: guard.organizations.disable("acme"))
    assert (entry.action, entry.subject) == (Action.ORGANIZATION_DISABLED, stored.acme.id)
    assert (entry.before, entry.after) == ({"disabled_at": None}, {"disabled_at": at})
    (entry,) = changed(stored, lambda: guard.organizations.enable("acme"))
    assert (entry.before, entry.after) == ({"disabled_at": at}, {"disabled_at": None})


def test_what_is_new_has_no_before(stored: Stored) -> None:
    (entry,) = changed(stored, lambda: stored.issue("inference:read", expires_in=HOUR))

    assert entry.action is Action.KEY_ISSUED
    assert entry.before is None
    (key,) = stored.guard.keys.list()
    assert entry.subject == key.id
    assert entry.after["name"] == "test"
    assert entry.after["scopes"] == ["inference:read"]
    assert entry.after["expires_at"] == key.expires_at.isoformat().replace("+00:00", "Z")
    assert set(entry.after) == set(fields_of(key)) - {
        *("version", "not_before", "revoked_at", "revoked_reason", "revoked_note", "successor"),
        *("grace_ends_at", "rotation_key", "last_used_at", "last_used_address", "owner"),
    }


def test_a_rotation_is_two_entries_of_one_time(stored: Stored) -> None:
    old = stored.issue().key

    rotated, issued = changed(
        stored, lambda: stored.guard.keys.rotate(old.id, idempotency_key="deploy 7")
    )

    assert (rotated.action, rotated.subject) == (Action.KEY_ROTATED, old.id)
    assert (issued.action, issued.subject) == (Action.KEY_ISSUED, rotated.after["successor"])
    assert rotated.after["rotation_key"] == "deploy 7"
    assert rotated.at == issued.at
    assert issued.after["family"] == old.family


def test_a_principal_is_named_by_its_key(stored: Stored) -> None:
    actor = stored.issue("admin")

    (entry,) = changed(stored, lambda: stored.issue("admin", actor=stored.principal(actor)))

    assert entry.actor == f"key:{actor.key.id}"


def test_what_changes_nothing_leaves_no_entry(stored: Stored) -> None:
    key = stored.issue("inference:read").key
    guard = stored.guard
    guard.organizations.disable("acme")

    for operation in (
        lambda: guard.keys.update(key.id, name=key.name, scopes=["inference:read"]),
        lambda: guard.keys.update(key.id),
        lambda: guard.organizations.disable("acme"),
        lambda: guard.organizations.update("acme", name="acme"),
        guard.keys.list,
        lambda: guard.keys.get(key.id),
        guard.flush,
    ):
        assert changed(stored, operation) == []


def test_a_change_that_was_not_made_has_no_entry(stored: Stored) -> None:
    key = stored.issue().key

    class Failing:
        def __init__(self, store: Any) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        def end(self, ending: Any) -> Any:
            raise StoreUnavailableError("down")

        commit = end

    guard = stored.another(Failing(stored.guard.real._store))

    def failing() -> None:
        for operation in (guard.keys.revoke, guard.keys.rotate):
            with pytest.raises(StoreUnavailableError):
                operation(key.id)

    assert changed(stored, failing) == []
    assert stored.guard.keys.get(key.id) == key


@pytest.mark.settings(imported_formats=["drf"], peppers=["vUq3xJ9tRwz0HdC7YkLmNpQsEaGiBfXo"])
def test_no_entry_holds_a_token_or_what_it_is_stored_as(stored: Stored) -> None:
    guard = stored.guard
    issued: list[IssuedKey] = [stored.issue("inference:read")]
    rotated = guard.keys.rotate(issued[0].key.id)
    guard.keys.import_tokens([json.dumps(ROW | {"token": IMPORTED})])
    guard.keys.revoke_token(rotated.token, note="found")
    guard.keys.revoke_token(IMPORTED)
    guard.keys.update(issued[0].key.id, metadata={"a": "b"})

    text = json.dumps([dataclasses.asdict(entry) for entry in stored.trail()], default=str)

    for token in (issued[0].token.reveal(), rotated.token.reveal()):
        assert token not in text
        assert token[-49:-6] not in text  # the secret alone
    assert IMPORTED.partition(".")[2] not in text
    store = guard.real._store
    digests = getattr(store, "_store", store)._digests.values()
    assert len(digests) == 3
    for digest in digests:
        assert digest not in text
        assert digest.rpartition("$")[2] not in text
    assert "digest" not in text


def test_the_trail_is_read_newest_first_by_organization_and_subject(stored: Stored) -> None:
    stored.guard.organizations.create("other")
    ours, theirs = stored.issue().key, stored.issue(organization="other").key
    stored.guard.keys.update(ours.id, name="new")
    audit = stored.guard.audit

    assert [entry.action for entry in audit.list(subject=ours.id)] == [
        Action.KEY_UPDATED,
        Action.KEY_ISSUED,
    ]
    assert {entry.organization for entry in audit.list(organization="acme")} == {stored.acme.id}
    assert [entry.subject for entry in audit.list(organization="other", limit=1)] == [theirs.id]
    pages, after = [], None
    while True:
        page = audit.list(after=after, limit=2)
        pages += page.items
        if page.next is None:
            break
        after = page.next
    assert pages == stored.trail()[::-1]


def test_a_trail_that_can_t_be_is_refused(stored: Stored) -> None:
    with pytest.raises(NotFoundError, match="no organization 'nobody'"):
        stored.guard.audit.list(organization="nobody")
    with pytest.raises(InvalidValueError, match="1 to 1000"):
        stored.guard.audit.list(limit=0)
    with pytest.raises(InvalidValueError, match="the subject is the id"):
        stored.guard.audit.list(subject=7)
