"""Operations upon one request at the same time, on every kind of store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from keyguard import Action, IssuedKey, KeyRequest, RefusedError, StoreUnavailableError
from keyguard.core.keys.results import CreatedRequest
from keyguard.core.management.request_turns import MOST_OPEN
from tests.management.test_requests import approved, ask
from tests.stored import Stored

pytestmark = pytest.mark.campaign(
    "memory", "sqlite-sync", "postgresql-async", "mariadb-sync", "redis-"
)

Call = Callable[[Any], Any]


def claiming(created: Any) -> Call:
    return lambda guard: guard.requests.claim(created.request.id, ticket=created.ticket)


def approving(created: Any, actor: str) -> Call:
    return lambda guard: guard.requests.approve(created.request.id, actor=actor)


def actions(stored: Stored) -> list[Action]:
    return [entry.action for entry in stored.trail()]


@pytest.mark.campaign(
    "memory-sync", "sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async"
)
def test_fifty_claims_at_once_make_one_key(anywhere: Stored) -> None:
    created = approved(anywhere, "inference:read")

    results = anywhere.together([claiming(created)] * 50)

    [issued] = [result for result in results if isinstance(result, IssuedKey)]
    refused = [result for result in results if result is not issued]
    assert all(isinstance(r, RefusedError) and "is claimed" in str(r) for r in refused)
    assert anywhere.guard.keys.list().items == (issued.key,)
    assert anywhere.lets_in(issued.token)
    assert actions(anywhere).count(Action.REQUEST_CLAIMED) == 1


@pytest.mark.campaign(
    "memory-sync", "sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async"
)
def test_a_claim_against_its_rescission_makes_a_key_or_none(anywhere: Stored) -> None:
    for _ in range(5):
        created = approved(anywhere)
        before = len(anywhere.guard.keys.list())
        results = anywhere.together(
            [
                claiming(created),
                lambda guard, created=created: guard.requests.rescind(  # type: ignore[misc]
                    created.request.id, actor="bob"
                ),
            ]
        )
        claimed, rescinded = results
        assert isinstance(claimed, IssuedKey) != isinstance(rescinded, KeyRequest)
        made = len(anywhere.guard.keys.list()) - before
        assert made == isinstance(claimed, IssuedKey)


def test_fifty_requests_at_once_are_no_more_than_may_be_open(anywhere: Stored) -> None:
    asking: Call = lambda guard: guard.requests.create(  # noqa: E731
        organization="acme", name="laptop", actor="alice"
    )

    results = anywhere.together([asking] * 50)

    done = [result for result in results if isinstance(result, CreatedRequest)]
    assert 1 <= len(done) == len(anywhere.guard.requests.list()) <= MOST_OPEN
    refused = [result for result in results if result not in done]
    assert all(isinstance(result, RefusedError) for result in refused)
    whys = ("has 5 open requests", "is being made; try again")
    assert all(any(why in str(result) for why in whys) for result in refused)


def test_asking_makes_nothing_stale_that_others_have_read(anywhere: Stored) -> None:
    guard, request = anywhere.guard, ask(anywhere).request
    organization = guard.organizations.get("acme")

    again = ask(anywhere).request
    guard.requests.withdraw(again.id, actor="alice")

    assert guard.organizations.get("acme") == organization
    assert guard.requests.get(request.id) == request


def test_a_turn_that_nobody_ended_expires(anywhere: Stored) -> None:
    def fail(_: Any) -> None:
        raise StoreUnavailableError("gone while the commit may go on")

    dying = anywhere.interposing(fail)
    with pytest.raises(StoreUnavailableError):
        dying.requests.create(organization="acme", name="laptop", actor="alice")
    with pytest.raises(RefusedError, match="another request of 'alice' is being made; try again"):
        ask(anywhere)
    ask(anywhere, actor="carol")

    anywhere.clock.advance(timedelta(hours=1))
    assert ask(anywhere).request.requester == "alice"


def test_a_refusal_ends_the_turn(anywhere: Stored) -> None:
    created = [ask(anywhere) for _ in range(MOST_OPEN)]
    for _ in range(2):
        with pytest.raises(RefusedError, match="has 5 open requests"):
            ask(anywhere)
    anywhere.guard.requests.withdraw(created[0].request.id, actor="alice")
    ask(anywhere)


@pytest.mark.settings(approvals={"admin": 3})
def test_one_approver_at_once_counts_once(anywhere: Stored) -> None:
    created = ask(anywhere, "admin")

    anywhere.together([approving(created, "bob")] * 5 + [approving(created, "carol")] * 5)

    request = anywhere.guard.requests.get(created.request.id)
    assert sorted(request.decided_by) == ["bob", "carol"]
    assert request.state == "pending"


@pytest.mark.campaign("memory-async", "postgresql-async", "redis-sync")
def test_fifty_reclaims_at_once_leave_one_key(anywhere: Stored) -> None:
    created = approved(anywhere)
    anywhere.guard.requests.claim(created.request.id, ticket=created.ticket)

    results = anywhere.together(
        [lambda guard: guard.requests.reclaim(created.request.id, ticket=created.ticket)] * 10
    )

    alive = [key for key in anywhere.guard.keys.list() if key.revoked_at is None]
    assert [key.id for key in alive] == [anywhere.guard.requests.get(created.request.id).key]
    working = [r for r in results if isinstance(r, IssuedKey) and anywhere.lets_in(r.token)]
    assert len(working) == 1


def test_a_claim_sees_a_ceiling_that_comes_between(anywhere: Stored) -> None:
    created = approved(anywhere, "admin")
    guard = anywhere.interposing(
        lambda other: other.organizations.update("acme", scopes=["inference:read"], force=True)
    )

    with pytest.raises(RefusedError, match="may not have admin"):
        guard.requests.claim(created.request.id, ticket=created.ticket)

    assert anywhere.guard.keys.list().items == ()
