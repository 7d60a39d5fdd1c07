"""Every list, text and number that a caller can store has a bound: at its edge, and beyond."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from keyguard import InvalidValueError, Limit, NotFoundError
from keyguard.core.limits.limit import MOST_LIMITS, MOST_RATES, MOST_STORED_LIMITS, merged
from tests.stored import Stored


def rates(number: int) -> str:
    return "; ".join(f"{n}/{n} hours" for n in range(1, number + 1))


def networks(number: int) -> list[str]:
    return [f"10.0.{n // 256}.{n % 256}" for n in range(number)]


def texts(number: int) -> dict[str, str]:
    return {f"{n}": "x" for n in range(number)}


KEY: dict[str, tuple[Any, Any]] = {
    "name": ("x" * 200, "x" * 201),
    "scopes": ([f"s:{n}" for n in range(100)], [f"s:{n}" for n in range(101)]),
    "a scope": (["s" * 100], ["s" * 101]),
    "metadata": (texts(50), texts(51)),
    "a metadata name": ({"n" * 500: ""}, {"n" * 501: ""}),
    "a metadata value": ({"n": "x" * 500}, {"n": "x" * 501}),
    "allowed_networks": (networks(100), networks(101)),
    "limits": (
        [Limit(f"l{n}", "1/hour") for n in range(MOST_STORED_LIMITS)],
        [Limit(f"l{n}", "1/hour") for n in range(MOST_STORED_LIMITS + 1)],
    ),
    "a limit's rates": ([Limit("l", rates(MOST_RATES))], lambda: [Limit("l", rates(9))]),
    "a limit's name": ([Limit("l" * 64, "1/hour")], lambda: [Limit("l" * 65, "1/hour")]),
    "an amount": ([Limit("l", f"{10**12}/hour")], lambda: [Limit("l", f"{10**12 + 1}/hour")]),
    "a window": ([Limit("l", "1/366 days")], lambda: [Limit("l", "1/367 days")]),
    "actor": ("x" * 200, "x" * 201),
}
ARGUMENTS = {
    "a scope": "scopes",
    "a metadata name": "metadata",
    "a metadata value": "metadata",
    "a limit's rates": "limits",
    "a limit's name": "limits",
    "an amount": "limits",
    "a window": "limits",
}


@pytest.mark.settings(catalogue=None)
@pytest.mark.parametrize("what", KEY)
def test_a_key_at_the_bound_is_kept_and_beyond_it_refused(stored: Stored, what: str) -> None:
    within, beyond = KEY[what]
    name = ARGUMENTS.get(what, what)
    options: dict[str, Any] = {"organization": "acme", "name": "test"}

    key = stored.guard.keys.issue(**options | {name: within}).key
    assert stored.guard.keys.get(key.id) == key
    if name != "actor":
        assert stored.guard.keys.update(key.id, **{name: within}) == key

    for operation in (
        lambda **given: stored.guard.keys.issue(**options | given),
        lambda **given: stored.guard.keys.update(key.id, **given),
    ):
        with pytest.raises(InvalidValueError):
            operation(**{name: beyond() if callable(beyond) else beyond})


@pytest.mark.parametrize(
    ("name", "within", "beyond"),
    [
        ("name", "x" * 200, "x" * 201),
        ("scopes", ["inference:*"], [f"s:{n}" for n in range(101)]),
        ("max_key_lifetime", timedelta(seconds=1), timedelta(milliseconds=999)),
        (
            "limits",
            [Limit(f"l{n}", "1/hour") for n in range(MOST_STORED_LIMITS)],
            [Limit(f"l{n}", "1/hour") for n in range(MOST_STORED_LIMITS + 1)],
        ),
    ],
)
def test_an_organization_at_the_bound_is_kept_and_beyond_it_refused(
    stored: Stored, name: str, within: Any, beyond: Any
) -> None:
    updated = stored.guard.organizations.update("acme", **{name: within})
    assert stored.guard.organizations.get("acme") == updated

    for operation in (
        lambda **given: stored.guard.organizations.update("acme", **given),
        lambda **given: stored.guard.organizations.create("other", **given),
    ):
        with pytest.raises(InvalidValueError):
            operation(**{name: beyond})


def test_a_revocation_and_a_rotation_at_the_bound_are_kept(stored: Stored) -> None:
    key = stored.issue().key
    for options in ({"note": "x" * 201},):
        with pytest.raises(InvalidValueError):
            stored.guard.keys.revoke(key.id, **options)
    with pytest.raises(InvalidValueError):
        stored.guard.keys.rotate(key.id, idempotency_key="x" * 201)
    rotated = stored.guard.keys.rotate(key.id, idempotency_key="x" * 200)
    assert stored.guard.keys.revoke(rotated.key.id, note="x" * 200).revoked_note == "x" * 200


def test_a_request_has_at_most_twenty_limits_after_merging() -> None:
    levels = [
        [Limit(f"{level}-{n}", "1/hour") for n in range(most)]
        for level, most in (
            ("default", MOST_LIMITS),
            ("organization", MOST_STORED_LIMITS),
            ("key", MOST_STORED_LIMITS),
        )
    ]
    assert len(merged(*levels)) == 20


TOKEN = "aiaas_live_ozkRekpWsoq76qpt_PVBf4xtymJQfJA7WMbAwrsoBaV2lyqPWzSCoMAnrRt13oCRZC"


@pytest.mark.parametrize("argument", [
    "name", "actor", "scopes", "organization", "limits", "allowed_networks", "metadata",
    "expires_in", "not_before",
])  # fmt: skip
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_token_that_is_passed_by_mistake_is_not_echoed(
    stored: Stored, argument: str, end: str
) -> None:
    given = {"organization": "acme", "name": "test"} | {argument: TOKEN + end}
    try:
        stored.guard.keys.issue(**given)
    except Exception as failure:  # noqa: BLE001 - whatever it is
        said = f"{failure} {failure.__cause__}"
    else:
        said = ""  # a name may be anything
    assert TOKEN[-20:] not in said
    assert TOKEN[28:40] not in said


@pytest.mark.parametrize("token", [TOKEN, "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc" + "x" * 12])
def test_a_token_that_is_passed_as_an_id_is_not_echoed(stored: Stored, token: str) -> None:
    keys, organizations = stored.guard.keys, stored.guard.organizations
    for operation in (
        lambda: keys.get(token),
        lambda: keys.rotate(token),
        lambda: keys.revoke(token),
        lambda: keys.revoke_family(token),
        lambda: keys.update(token, name="x"),
        lambda: keys.list(organization=token),
        lambda: organizations.get(token),
        lambda: organizations.disable(token),
    ):
        with pytest.raises((NotFoundError, InvalidValueError)) as refusal:
            operation()
        assert token[-12:] not in str(refusal.value)
