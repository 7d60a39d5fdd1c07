"""Public values refuse an argument of a wrong type where they are built, not at their use."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

import keyguard
from keyguard import (
    AccessDenied,
    AsyncKeyguard,
    InvalidValueError,
    Keyguard,
    KeyTerms,
    Principal,
    ScopeCatalogue,
    ScopeGrant,
    Secret,
)
from keyguard.testing import ApiKey, MemoryGuards, MovingClock, acting_as, make_principal

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY, FAMILY, ORGANIZATION = "0" * 16, f"fam_{'0' * 16}", f"org_{'0' * 16}"

# What a host builds, each with arguments that are fine.
BUILT: dict[str, dict[str, Any]] = {
    "ApprovalRule": {"name": "readers", "scopes": ["a"]},
    "AuditEntry": {
        "at": NOW,
        "actor": "service",
        "action": "key.issued",
        "subject": KEY,
        "organization": ORGANIZATION,
        "before": None,
        "after": {},
    },
    "Key": {
        "id": KEY,
        "family": FAMILY,
        "organization": ORGANIZATION,
        "name": "",
        "scopes": ["a"],
        "created_at": NOW,
    },
    "KeyRequest": {
        "id": f"req_{'0' * 16}",
        "organization": ORGANIZATION,
        "requester": "ann",
        "name": "",
        "asked": KeyTerms(scopes=frozenset("a")),
        "created_at": NOW,
        "pending_until": NOW,
    },
    "KeyTerms": {"scopes": ["a"]},
    "Limit": {"name": "a", "rate": "1/minute"},
    "Organization": {"id": ORGANIZATION, "slug": "acme", "name": "", "created_at": NOW},
    "Person": {"id": "ann"},
    "Principal": {
        "key_id": KEY,
        "family": FAMILY,
        "organization": ORGANIZATION,
        "grant": ScopeGrant(frozenset({"a"})),
        "metadata": {},
    },
    "Request": {"method": "GET", "path": "/"},
    "Rule": {"path": "/a", "limits": ["1/minute"]},
    "Settings": {},
    "UsageTags": {"names": ["a"], "function": lambda *_: None},
}
# What keyguard alone builds, and hands out.
HANDED_OUT = {
    "Allow",
    "CreatedRequest",
    "DamagedKey",
    "DamagedOrganization",
    "DeletedAudit",
    "DeletedKeys",
    "Deny",
    "Hint",
    "ImportReport",
    "IssuedKey",
    "LimitStatus",
    "OwnUsage",
    "Page",
    "RotatedKey",
    "UsageReport",
}


class Odd:
    """Of no type that a value has."""


def test_every_public_value_is_tested_here() -> None:
    public = {name: getattr(keyguard, name) for name in keyguard.__all__}
    values = {name for name, value in public.items() if dataclasses.is_dataclass(value)}

    assert values == BUILT.keys() | HANDED_OUT


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize(
    "odd", [Odd(), 5j, [Odd()], {5: Odd()}], ids=["thing", "5j", "list", "map"]
)
def test_a_value_refuses_an_argument_of_a_wrong_type(name: str, odd: object) -> None:
    made = getattr(keyguard, name)
    made(**BUILT[name])
    free = {"before", "after"} if isinstance(odd, dict) else set[str]()  # whatever JSON takes
    for field in dataclasses.fields(made):
        if field.init and field.name not in free:
            with pytest.raises(InvalidValueError):
                made(**{**BUILT[name], field.name: odd})
                pytest.fail(f"{field.name} was taken")


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("Key", "owner"),
        ("Key", "revoked_note"),
        ("KeyRequest", "note"),
        ("KeyRequest", "granted"),
        ("Settings", "hasher"),
        ("Settings", "rules"),
    ],
)
def test_a_false_value_of_a_wrong_type_is_no_none(name: str, field: str) -> None:
    wrong: object = "" if field in ("hasher", "rules", "granted") else 0

    with pytest.raises(InvalidValueError):
        getattr(keyguard, name)(**{**BUILT[name], field: wrong})


def test_a_list_of_scopes_is_no_grant_and_the_message_says_what_takes_one() -> None:
    with pytest.raises(InvalidValueError, match=r"make_principal takes a list"):
        Principal(**{**BUILT["Principal"], "grant": ["a"]})
    for wrong in (["a"], {"a"}, "a", frozenset({5}), None):
        with pytest.raises(InvalidValueError, match="frozensets of strings"):
            ScopeGrant(wrong)  # type: ignore[arg-type]


def test_a_secret_of_a_wrong_type_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidValueError) as refusal:
        Secret(b"hunter2")  # type: ignore[arg-type]

    assert "hunter2" not in str(refusal.value)


def enter(**arguments: Any) -> None:
    with acting_as(**arguments):
        pass


with MemoryGuards() as guards:
    SENT = guards.issue()


@pytest.mark.parametrize(
    "call",
    [
        lambda: ScopeCatalogue({"a": 5}),  # type: ignore[dict-item]
        lambda: ScopeCatalogue({"a": "b"}, implies=[5]),  # type: ignore[arg-type]
        lambda: AccessDenied("no"),  # type: ignore[arg-type]
        lambda: Keyguard("memory://", settings={"realm": "a"}),  # type: ignore[call-overload]
        lambda: AsyncKeyguard("memory://", settings={}),  # type: ignore[call-overload]
        lambda: Keyguard("memory://", hooks=[5]),  # type: ignore[list-item]
        lambda: Keyguard("memory://", hooks=5),  # type: ignore[arg-type]
        lambda: enter(principal=["a"]),
        lambda: enter(principal="key"),
        lambda: enter(request="/"),
        lambda: enter(guard="memory://"),
        lambda: enter(metadata=5),
        lambda: make_principal(guard=5),  # type: ignore[arg-type]
        lambda: make_principal(key_id=5),  # type: ignore[arg-type]
        lambda: MovingClock("now"),  # type: ignore[arg-type]
        lambda: MovingClock().advance(5),  # type: ignore[arg-type]
        lambda: MemoryGuards(settings={"realm": "a"}),  # type: ignore[arg-type]
        lambda: MemoryGuards(store="memory://"),  # type: ignore[arg-type]
        lambda: MemoryGuards(clock=5),  # type: ignore[arg-type]
        lambda: MemoryGuards(events=5),  # type: ignore[arg-type]
        lambda: MemoryGuards.of("guard"),  # type: ignore[arg-type]
        lambda: ApiKey(key="k", token=SENT.token),  # type: ignore[arg-type]
        lambda: ApiKey(key=SENT.key, token="t"),  # type: ignore[arg-type]
        lambda: ApiKey(key=SENT.key, token=SENT.token, carrier="pigeon"),
    ],
)
def test_what_is_no_value_refuses_a_wrong_type_too(call: Callable[[], object]) -> None:
    with pytest.raises(InvalidValueError):
        call()
