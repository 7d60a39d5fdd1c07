"""Times and spans, whatever Python can express: they are taken, or refused as not valid."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyguard import InvalidValueError, Keyguard, Limit, RefusedError, Secret, Settings, rate_limit
from keyguard.core.management.import_rows import ImportRow
from keyguard.core.tokens.foreign import ForeignFormat
from tests.stored import Stored
from tests.world import StandingClock

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
INSTANT = timedelta(microseconds=1)
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
NEVER = datetime(9999, 12, 31, tzinfo=UTC)
EAST, WEST = timezone(DAY - INSTANT), timezone(INSTANT - DAY)
LONGEST = LAST - FIRST

ZONES = st.sampled_from(
    [UTC, EAST, WEST, ZoneInfo("Pacific/Kiritimati"), ZoneInfo("Europe/Berlin")]
)
TIMES = st.one_of(
    st.builds(
        datetime.replace,
        st.one_of(st.sampled_from([FIRST, LAST]), st.datetimes()),
        tzinfo=st.one_of(st.none(), ZONES),
    ),
    st.sampled_from([FIRST, LAST, NEVER]),
)
SPANS = st.one_of(
    st.timedeltas(),
    st.sampled_from(
        [timedelta.min, timedelta(0), INSTANT, LONGEST, LONGEST + INSTANT, timedelta.max]
    ),
)
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.sampled_from([10**5000, 2**63, 2**31, 5e-324]),
)


def digits(number: Any) -> str:
    """Return a number as somebody would write it, also one of too many digits for Python."""
    return "9" * 5000 if isinstance(number, int) and number > 10**4000 else format(number)


def tokens() -> Callable[[], str]:
    number = iter(range(10**6))
    return lambda: f"imported-{next(number):06}-q7Zp0Lw3Vn8XcT5bRy2Kd9Hs6Jf4Mg1A"


def row(token: str, **fields: Any) -> ImportRow:
    given = {"organization": "acme", "name": "test", "format": ForeignFormat("token")}
    return ImportRow(**given | {"token": Secret(token)} | fields)


class Places:
    """A guard, and each place in it that takes times or spans."""

    def __init__(self, guard: Any, token: Callable[[], str]) -> None:
        self.guard, self.token = guard, token
        self.keys, self.organizations = guard.keys, guard.organizations

    def issue(self, **fields: Any) -> Any:
        return self.keys.issue(organization="acme", name="test", **fields)

    def update(self, **fields: Any) -> Any:
        return self.keys.update(self.issue().key.id, **fields)

    def rotate(self, **fields: Any) -> Any:
        return self.keys.rotate(self.issue().key.id, **fields)

    def import_row(self, **fields: Any) -> Any:
        return self.keys.import_tokens([row(self.token(), **fields)])

    def import_text(self, **fields: Any) -> Any:
        shown = {name: value.isoformat() for name, value in fields.items()}
        line = {"organization": "acme", "name": "test", "token": self.token()} | shown
        return self.keys.import_tokens([json.dumps(line)])

    def bound(self, **fields: Any) -> Any:
        made = self.organizations.update("acme", **fields)
        issued = self.issue()
        self.keys.rotate(issued.key.id)
        self.import_row(created_at=FIRST)
        self.organizations.update("acme", max_key_lifetime=None)
        return made


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def places(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Places]:
    folder = tmp_path_factory.mktemp("places")
    url = "memory://" if request.param == "memory" else f"sqlite:///{folder}/keys.db"
    patience = {"store_timeout": 60.0, "management_timeout": 600.0}  # a busy machine is no outage
    options: dict[str, Any] = {"imported_formats": ["token"], **patience}
    with Keyguard(url, clock=StandingClock(), **options) as guard:
        guard.migrate()
        guard.organizations.create("acme")
        yield Places(guard, tokens())


@pytest.mark.campaign("memory-issue", "memory-import_row", "sqlite-update", "sqlite-import_text")
@given(data=st.data())
@pytest.mark.parametrize("name", ["not_before", "expires_at", "created_at"])
@pytest.mark.parametrize("place", ["issue", "update", "import_row", "import_text"])
def test_a_time_is_taken_or_not_valid(
    places: Places, place: str, name: str, data: st.DataObject
) -> None:
    if name == "created_at" and not place.startswith("import"):
        return
    with suppress(InvalidValueError):
        getattr(places, place)(**{name: data.draw(TIMES)})


@given(start=TIMES, end=TIMES, span=SPANS)
def test_a_start_and_an_end_or_a_span_are_taken_or_not_valid(
    places: Places, start: datetime, end: datetime, span: timedelta
) -> None:
    for fields in ({"expires_at": end}, {"expires_in": span}):
        with suppress(InvalidValueError):
            issued = places.issue(not_before=start, **fields)
            places.keys.rotate(issued.key.id)


@pytest.mark.campaign("memory-issue", "memory-rotate", "sqlite-list", "sqlite-bound")
@given(span=SPANS)
@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("issue", "expires_in"),
        ("rotate", "grace"),
        ("rotate", "expires_in"),
        ("list", "expiring_within"),
        ("list", "unused_for"),
        ("bound", "max_key_lifetime"),
    ],
)
def test_a_span_is_taken_or_not_valid(
    places: Places, place: str, name: str, span: timedelta
) -> None:
    method = places.keys.list if place == "list" else getattr(places, place)
    with suppress(InvalidValueError):
        method(**{name: span})


@given(number=NUMBERS)
@pytest.mark.parametrize(
    "name",
    [
        *("max_staleness", "store_timeout", "management_timeout", "connection_max_age"),
        *("hash_timeout", "limiter_timeout", "cache_size", "hash_workers", "limiter_processes"),
        "durable_replicas",
    ],
)
def test_a_number_of_a_setting_is_taken_or_not_valid(name: str, number: Any) -> None:
    with suppress(InvalidValueError):
        Settings(**{name: number})
    with suppress(InvalidValueError):
        Settings.from_env({f"KEYGUARD_{name.upper()}": digits(number)})


@given(number=NUMBERS)
def test_a_number_elsewhere_is_taken_or_not_valid(places: Places, number: Any) -> None:
    for call in (
        lambda: places.keys.list(limit=number),
        lambda: places.guard.audit.list(limit=number),
        lambda: places.organizations.update("acme", max_keys=number),
        lambda: rate_limit("1/minute", cost=number),
        lambda: Limit("a", f"1 per {digits(number)} seconds"),
        lambda: Limit("a", f"{digits(number)}/minute"),
        lambda: Settings(default_limits=[f"1 per {digits(number)} years"]),
    ):
        with suppress(InvalidValueError):
            call()
    with suppress(InvalidValueError, RefusedError):
        places.organizations.update("acme", max_keys=None)


@pytest.mark.campaign(
    "memory-sync", "sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async"
)
@pytest.mark.settings(imported_formats=["token"])
def test_every_store_gives_back_the_first_and_the_last_time(anywhere: Stored) -> None:
    token = tokens()()
    given = row(token, created_at=FIRST, not_before=FIRST, expires_at=LAST)
    assert anywhere.guard.keys.import_tokens([given]).imported == 1
    anywhere.guard.organizations.update("acme", max_key_lifetime=LONGEST)
    afresh = anywhere.another()

    (key,) = afresh.keys.list()
    assert (key.created_at, key.not_before, key.expires_at) == (FIRST, FIRST, LAST)
    assert afresh.organizations.get("acme").max_key_lifetime == LONGEST
    assert anywhere.lets_in(Secret(token), afresh)
    assert [found.id for found in afresh.keys.list(unused_for=DAY)] == [key.id]
    assert len(afresh.keys.list(expiring_within=LAST - anywhere.clock.now)) == 0
    assert anywhere.trail(subject=key.id)[0].after["expires_at"] == "9999-12-31T23:59:59.999999Z"
    issued, rotated = anywhere.issue().key, afresh.keys.rotate(key.id)
    assert issued.expires_at == rotated.key.expires_at == LAST
    assert anywhere.another().keys.get(rotated.key.id) == rotated.key
    anywhere.guard.organizations.update("acme", max_key_lifetime=timedelta(seconds=1))
    assert afresh.organizations.get("acme").max_key_lifetime == timedelta(seconds=1)


# What is asked for where the answer would lie beyond


def test_a_key_that_never_ends_in_other_systems_has_a_successor_that_ends_then(
    stored: Stored,
) -> None:
    key = stored.issue(expires_at=NEVER).key
    stored.clock.advance(DAY)

    successor = stored.guard.keys.rotate(key.id).key

    assert successor.expires_at == NEVER
    assert stored.guard.keys.rotate(successor.id, expires_in=DAY).key.expires_at == (
        stored.clock.now + DAY
    )


def test_keys_of_an_organization_that_bounds_nothing_end_at_the_last_time(stored: Stored) -> None:
    key = stored.issue().key
    stored.guard.organizations.update("acme", max_key_lifetime=LONGEST)

    assert stored.issue().key.expires_at == LAST
    assert stored.guard.keys.rotate(key.id).key.expires_at == LAST


@pytest.mark.parametrize("name", ["not_before", "expires_at"])
@pytest.mark.parametrize("time", [LAST.replace(tzinfo=WEST), FIRST.replace(tzinfo=EAST)])
def test_a_time_outside_the_years_of_utc_is_refused(
    stored: Stored, name: str, time: datetime
) -> None:
    key = stored.issue().key

    for change in (stored.issue, partial(stored.guard.keys.update, key.id)):
        with pytest.raises(InvalidValueError, match=f"^{name} lies outside the years 1 to 9999"):
            change(**{name: time})


def test_a_span_counts_hours_also_where_the_clocks_change(stored: Stored) -> None:
    start = datetime(2027, 3, 27, 12, tzinfo=ZoneInfo("Europe/Berlin"))

    key = stored.issue(not_before=start, expires_in=DAY).key

    assert key.not_before is not None
    assert key.expires_at == key.not_before + DAY
