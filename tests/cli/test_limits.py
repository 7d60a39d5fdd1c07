"""Limits on the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keyguard import Keyguard
from keyguard.adapters import wsgi
from tests.adapters.stacks import Request, call_wsgi, wsgi_app
from tests.cli.conftest import Program, Store
from tests.stores.conftest import make_database


def test_a_key_is_created_with_limits_and_shows_what_is_left(
    keyguard: Program, store: Store
) -> None:
    made = keyguard(
        *("key", "create", "--org", "acme", "--name", "ci", "--limit", "100/minute"),
        *("--limit", "daily=5000/day", "--json"),
    ).json
    key_id = made["id"]
    shown = keyguard("key", "show", key_id, "--json").json
    assert [limit["name"] for limit in shown["limits"]] == ["key-minute", "daily"]

    words = keyguard("key", "limits", key_id).stdout
    assert re.search(r"^.*key-minute +100 in 1 min +100 +yes", words, re.MULTILINE)
    assert re.search(r"^.*daily +5000 in 1 d +5000 +yes", words, re.MULTILINE)
    shown = keyguard("key", "limits", key_id, "--json").json
    assert shown["limits"][0] == {
        "name": "key-minute", "quota": 100, "window": 60, "remaining": 100, "reset_after": 0.0,
        "enforce": True,
    }  # fmt: skip
    assert "daily: 5000/day" in keyguard("key", "show", key_id).stdout


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_what_is_left_is_what_requests_have_left(
    kind: str, keyguard: Program, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = make_database(kind, request, tmp_path).url
    with Keyguard(url, limiter_timeout=10.0) as guard:
        guard.migrate()
        # Windows that end in next to no run of the tests, as the clock of the store counts them.
        guard.organizations.create("acme", limits=["1000/year"])
        issued = guard.keys.issue(organization="acme", name="ci", limits=["10/year"])
        app = wsgi.KeyguardMiddleware(wsgi_app([]), guard)
        bearer = b"Bearer " + issued.token.reveal().encode()
        statuses = [
            call_wsgi(app, Request("/any", authorization=(bearer,))).status for _ in range(12)
        ]
    assert statuses == [200] * 10 + [429] * 2
    shown = keyguard("key", "limits", issued.key.id, "--url", url, "--json").json["limits"]
    assert {limit["name"]: limit["remaining"] for limit in shown} == {
        "organization-year": 990,
        "key-year": 0,
    }


def test_limits_are_replaced_and_taken_away(keyguard: Program, store: Store) -> None:
    key_id = store.issue(limits=["1/minute"]).key.id
    changed = keyguard("key", "update", key_id, "--limit", "9/hour", "--json").json
    assert [limit["rate"] for limit in changed["limits"]] == ["9/hour"]
    keyguard("key", "update", key_id, "--name", "renamed")
    assert keyguard("key", "show", key_id, "--json").json["limits"] == changed["limits"]
    keyguard("key", "update", key_id, "--no-limits")
    assert keyguard("key", "limits", key_id).stdout == f"Key {key_id} has no limits.\n"


def test_an_organization_has_limits_that_its_keys_share(keyguard: Program, store: Store) -> None:
    keyguard("org", "update", "acme", "--limit", "1000/day")
    key_id = store.issue(limits=["5/minute"]).key.id
    shown = keyguard("key", "limits", key_id, "--json").json["limits"]
    assert [limit["name"] for limit in shown] == ["organization-day", "key-minute"]
    made = keyguard("org", "create", "globex", "--limit", "7/day", "--json").json
    assert made["limits"][0]["per"] == "organization"


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("often", "is not a valid rate; one looks like '100/minute'"),
        ("0/minute", "lets nothing through"),
        ("a b=1/minute", "is not a valid name of a limit"),
        ("1/minute;2/hour", "give them one by one"),
    ],
)
def test_a_malformed_limit_is_one_sentence(
    keyguard: Program, store: Store, limit: str, says: str
) -> None:
    key_id = store.issue().key.id
    refused = keyguard("key", "update", key_id, "--limit", limit)
    assert refused.status != 0
    assert says in refused.sentence


def test_counters_in_the_memory_of_another_process_are_refused(
    keyguard: Program, store: Store
) -> None:
    key_id = store.issue(limits=["1/minute"]).key.id
    refused = keyguard("key", "limits", key_id, "--limiter", "memory://")
    assert "can't be seen" in refused.sentence
