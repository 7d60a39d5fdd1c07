"""Which events are made, and that a hook that fails changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NoReturn

import pytest

from keyguard import Deny, Reason
from keyguard.runtime.events import (
    AccessRefused,
    Event,
    FeedFailed,
    FeedRecovered,
    HintFound,
    KeyClaimed,
    KeyExposed,
    LimiterFailed,
    LimiterRecovered,
    LimitExceeded,
    PlanUnknown,
    ReplicaFailed,
    ReplicaRecovered,
    RequestAnswered,
    RequestCreated,
    RequestDecided,
    is_wanted,
    log_event,
    subscribed,
    tell,
    tell_answer,
    tell_refusal,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EXPOSED = Deny(Reason.TRANSPORT_INSECURE, "4fKq0ZbT1mXw8RyA", "org_1")


def no_time() -> NoReturn:
    raise AssertionError("an event was made that no hook wants")


@pytest.fixture
def level(request: pytest.FixtureRequest) -> Iterator[None]:
    logger = logging.getLogger("keyguard")
    before = logger.level
    logger.setLevel(request.param)
    yield
    logger.setLevel(before)


@pytest.mark.parametrize(
    ("level", "logged"),
    [
        (
            logging.INFO,
            {
                AccessRefused,
                KeyExposed,
                LimitExceeded,
                PlanUnknown,
                LimiterFailed,
                LimiterRecovered,
                FeedFailed,
                FeedRecovered,
                ReplicaFailed,
                ReplicaRecovered,
                RequestCreated,
                RequestDecided,
                KeyClaimed,
                HintFound,
            },
        ),
        (
            logging.WARNING,
            {
                KeyExposed,
                PlanUnknown,
                LimiterFailed,
                LimiterRecovered,
                FeedFailed,
                FeedRecovered,
                ReplicaFailed,
                ReplicaRecovered,
                HintFound,
            },
        ),
        (logging.ERROR, {LimiterFailed, FeedFailed, ReplicaFailed}),
        (logging.CRITICAL, set()),
    ],
    indirect=["level"],
)
@pytest.mark.usefixtures("level")
def test_the_log_wants_what_its_level_lets_through(logged: set[type[Event]]) -> None:
    for kind in Event.__args__:  # type: ignore[attr-defined]
        assert is_wanted([log_event], kind) is (kind in logged)
        assert is_wanted([log_event, print], kind) is (kind is not RequestAnswered)
        assert is_wanted([log_event, subscribed(print, kind)], kind)
        assert not is_wanted([], kind)


@pytest.mark.parametrize(
    ("level", "wanted"),
    [(logging.ERROR, True), (logging.CRITICAL, False)],
    indirect=["level"],
)
@pytest.mark.usefixtures("level")
def test_a_key_store_that_fails_is_an_error_of_the_log(wanted: bool) -> None:
    assert is_wanted([log_event], AccessRefused, Reason.STORE_UNAVAILABLE) is wanted


@pytest.mark.parametrize("level", [logging.ERROR], indirect=True)
@pytest.mark.usefixtures("level")
def test_no_event_is_made_that_no_hook_wants() -> None:
    tell_refusal([log_event], EXPOSED, no_time, None)
    tell_refusal([], Deny(Reason.STORE_UNAVAILABLE), no_time, None)


@pytest.mark.parametrize("level", [logging.WARNING], indirect=True)
@pytest.mark.usefixtures("level")
def test_an_exposed_key_is_logged_where_the_refusal_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tell_refusal([log_event], EXPOSED, lambda: NOW, "192.0.2.1")

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "counts as exposed" in caplog.text


def test_a_hook_of_one_s_own_gets_both_events() -> None:
    told: list[Event] = []

    tell_refusal([told.append], EXPOSED, lambda: NOW, "192.0.2.1")

    assert [type(event) for event in told] == [AccessRefused, KeyExposed]
    assert {event.at for event in told} == {NOW}


def test_a_hook_that_fails_is_logged_and_the_next_is_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[Event] = []

    def broken(event: Event) -> None:
        raise ZeroDivisionError

    tell([broken, told.append], FeedRecovered(at=NOW, lasted=1.0))

    assert len(told) == 1
    assert "a keyguard hook failed on FeedRecovered" in caplog.text


@pytest.mark.parametrize(
    ("reason", "key_id", "said"),
    [
        (Reason.CREDENTIALS_MISSING, None, "request from 192.0.2.1 refused: credentials_missing"),
        (Reason.KEY_REVOKED, "4fKq", "request from 192.0.2.1 refused: key_revoked (key 4fKq)"),
    ],
)
def test_a_refusal_is_logged_with_its_key_if_there_is_one(
    reason: Reason, key_id: str | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "keyguard")

    log_event(AccessRefused(at=NOW, reason=reason, key_id=key_id, address="192.0.2.1"))

    assert caplog.messages == [said]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/x/9944b09199c62bcf9418ad846dd0e4bbdfc6ee4b", "/x/..."),  # djangorestframework
        ("/x/sk_live_" + "a" * 24 + "/y", "/x/.../y"),
        ("/x/mR5DdcGa.0vyS5C8BqPZTr5hDdA0Nw1dS", "/x/..."),
        ("/x/12|a1b2c3d4e5f6g7h8i9", "/x/..."),
        *(
            (path, path)
            for path in (
                "/v1/keys/4fKq0ZbT1mXw8RyA",
                "/organizations/org_4fKq0ZbT1mXw8RyA",
                "/items/123e4567-e89b-12d3-a456-426614174000",
                "/what-we-learned-in-the-year-2026",
                "/helloworld.v1.Greeter/ServerReflectionInfo",
            )
        ),
    ],
)
def test_an_event_shows_a_path_without_what_may_be_a_token(path: str, shown: str) -> None:
    class Line:
        method = "GET"

        def __init__(self) -> None:
            self.path = path

    told: list[Event] = []
    tell_answer([subscribed(told.append, RequestAnswered)], Line(), 200, None, NOW, None)
    assert [event.path for event in told if isinstance(event, RequestAnswered)] == [shown]
