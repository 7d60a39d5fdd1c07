"""Values that expire: what every key store does with them, in both flavours."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from keyguard.core.keys.temporary import Temporary
from keyguard.exceptions import CorruptDataError, InvalidValueError
from keyguard.stores.sql.tables import TEMPORARY
from tests.stores.conftest import DATABASES, ODD, REDISES, Awaited, Database, Kept, Plain
from tests.stores.records import NOON

pytestmark = pytest.mark.campaign(
    "memory",
    "sqlite",
    "postgresql",
    "mariadb",
    "redis-",
    "redis_cluster-async",
    "odd_postgresql-sync",
    "odd_mariadb-async",
)

HOUR = timedelta(hours=1)
DIGEST, OTHER = "0123456789abcdef" * 4, "f" * 64
SESSION = Temporary("session", DIGEST, "a value", NOON + HOUR)
TAKERS = 50


@pytest.fixture(params=("memory", *DATABASES, *ODD, *REDISES))
def store(request: pytest.FixtureRequest, flavour: str, kept: Kept) -> Plain | Awaited:
    return kept(request.param, flavour)


def test_a_value_is_found_until_it_expires(store: Any) -> None:
    assert store.put_temporary(SESSION, NOON) is True

    just_before = SESSION.expires_at - timedelta(microseconds=1)
    assert store.find_temporary("session", DIGEST, NOON) == SESSION
    assert store.find_temporary("session", DIGEST, just_before) == SESSION
    assert store.find_temporary("session", DIGEST, SESSION.expires_at) is None
    assert store.take_temporary("session", DIGEST, SESSION.expires_at) is None


def test_a_value_is_found_only_under_its_kind_and_digest(store: Any) -> None:
    store.put_temporary(SESSION, NOON)

    for kind, digest in (("session", OTHER), ("link", DIGEST), ("sessio", DIGEST)):
        assert store.find_temporary(kind, digest, NOON) is None
        assert store.take_temporary(kind, digest, NOON) is None
        assert store.put_temporary(Temporary(kind, digest, kind, NOON + HOUR), NOON) is True
    assert store.find_temporary("session", DIGEST, NOON) == SESSION


def test_a_value_that_is_kept_is_not_put_again(store: Any) -> None:
    store.put_temporary(SESSION, NOON)

    assert store.put_temporary(replace(SESSION, value="another"), NOON) is False
    assert store.put_temporary(SESSION, NOON) is False
    assert store.find_temporary("session", DIGEST, NOON) == SESSION


def test_a_value_is_put_in_the_place_of_one_that_has_expired(store: Any) -> None:
    store.put_temporary(SESSION, NOON)
    new = replace(SESSION, value="another", expires_at=NOON + 3 * HOUR)

    assert store.put_temporary(new, NOON + HOUR) is True
    assert store.find_temporary("session", DIGEST, NOON + HOUR) == new


def test_a_value_is_replaced_only_while_it_is_kept(store: Any) -> None:
    new = replace(SESSION, value="another", expires_at=NOON + 2 * HOUR)
    assert store.replace_temporary(new, NOON) is False

    store.put_temporary(SESSION, NOON)
    assert store.replace_temporary(new, NOON) is True
    assert store.find_temporary("session", DIGEST, NOON + HOUR) == new
    assert store.replace_temporary(SESSION, NOON + 2 * HOUR) is False

    store.take_temporary("session", DIGEST, NOON)
    assert store.replace_temporary(new, NOON) is False
    assert store.find_temporary("session", DIGEST, NOON) is None


def test_a_value_is_taken_once(store: Any) -> None:
    store.put_temporary(SESSION, NOON)

    assert store.take_temporary("session", DIGEST, NOON) == SESSION
    assert store.take_temporary("session", DIGEST, NOON) is None
    assert store.find_temporary("session", DIGEST, NOON) is None
    assert store.put_temporary(SESSION, NOON) is True


@pytest.mark.campaign(
    "memory-sync",
    "sqlite-sync",
    "mariadb-sync",
    "redis-async",
    "odd_postgresql-sync",
    "odd_mariadb-async",
)
@pytest.mark.parametrize(
    "value",
    ["", " ", "two  words\n", "ünknown \N{ROCKET}", "nul\0", '"{}', "\0" * 8192, "ü" * 4096],
    ids=range(8),
)
def test_a_value_is_any_short_text(store: Any, value: str) -> None:
    record = replace(SESSION, value=value)
    store.put_temporary(record, NOON)

    assert store.find_temporary("session", DIGEST, NOON) == record
    assert store.take_temporary("session", DIGEST, NOON) == record


def test_one_of_many_takes_a_value(store: Any) -> None:
    store.put_temporary(SESSION, NOON)

    taken = store.together([lambda store: store.take_temporary("session", DIGEST, NOON)] * TAKERS)

    assert [record for record in taken if record is not None] == [SESSION]


@pytest.mark.campaign(
    "sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async", "memory-sync"
)
@pytest.mark.parametrize("is_there", [False, True])
def test_one_of_many_puts_a_value(store: Any, is_there: bool) -> None:
    if is_there:  # but has expired
        store.put_temporary(SESSION, NOON)
    records = [
        replace(SESSION, value=str(number), expires_at=NOON + 2 * HOUR) for number in range(TAKERS)
    ]

    put = store.together(
        [lambda store, r=record: store.put_temporary(r, NOON + HOUR) for record in records]
    )

    [first] = [record for record, was in zip(records, put, strict=True) if was]
    assert store.find_temporary("session", DIGEST, NOON + HOUR) == first


@pytest.mark.campaign("sqlite-sync", "postgresql-async", "mariadb-sync")
def test_values_that_expired_are_deleted_with_each_new_one(
    database: Database, database_store: Any
) -> None:
    database_store.migrate()
    for number in range(150):
        record = Temporary("session", f"{number:064x}", "", NOON + number * HOUR)
        database_store.put_temporary(record, NOON)

    def left() -> int:
        with closing(database.backend()) as backend, backend.database.reads.connect() as connection:
            return connection.scalar(select(func.count()).select_from(TEMPORARY)) or 0

    assert left() == 149  # the first had expired when it was put
    database_store.put_temporary(SESSION, SESSION.expires_at - timedelta(microseconds=1))
    assert left() == 150
    database_store.put_temporary(replace(SESSION, digest=OTHER), NOON + 1000 * HOUR)
    assert left() == 51
    database_store.put_temporary(replace(SESSION, digest=OTHER), NOON + 1000 * HOUR)
    assert left() == 1


def test_redis_forgets_what_has_expired_by_itself(redis: Any) -> None:
    backend = Plain(Database("redis", redis.url, redis.url).backend())
    redis.flush()
    backend.migrate()
    record = replace(SESSION, expires_at=NOON + timedelta(seconds=5, microseconds=1))
    backend.put_temporary(record, NOON)

    left = int(redis.call("PTTL", f"keyguard:{{store}}:temporary:session:{DIGEST}"))
    backend.close()

    assert 0 < left <= 5001


@pytest.mark.campaign("sqlite-sync", "postgresql-async", "mariadb-sync")
def test_a_row_that_is_damaged_is_told_and_dropped(database: Database, database_store: Any) -> None:
    database_store.migrate()
    database_store.put_temporary(SESSION, NOON)
    backend = database.backend()
    with backend.database.writes.begin() as connection:
        connection.execute(update(TEMPORARY).values({"value": "[1]"}))
    backend.close()

    with pytest.raises(CorruptDataError, match="keyguard_temporary"):
        database_store.find_temporary("session", DIGEST, NOON)
    with pytest.raises(CorruptDataError):
        database_store.take_temporary("session", DIGEST, NOON)
    assert database_store.find_temporary("session", DIGEST, NOON) is None


@pytest.mark.parametrize("value", [b"nonsense", b"2026-03-01T12:00:00.000000 \xff", b""])
def test_a_text_in_redis_that_is_damaged_is_told_and_dropped(redis: Any, value: bytes) -> None:
    backend = Plain(Database("redis", redis.url, redis.url).backend())
    redis.flush()
    backend.migrate()
    redis.call("SET", f"keyguard:{{store}}:temporary:session:{DIGEST}", value)

    with pytest.raises(CorruptDataError):
        backend.find_temporary("session", DIGEST, NOON)
    with pytest.raises(CorruptDataError):
        backend.take_temporary("session", DIGEST, NOON)
    assert backend.find_temporary("session", DIGEST, NOON) is None
    backend.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "Session"},
        {"kind": ""},
        {"kind": "s" * 33},
        {"kind": None},
        {"digest": "0" * 63},
        {"digest": "0" * 63 + "G"},
        {"digest": "0" * 64 + "\n"},
        {"value": "x" * 8193},
        {"value": "ü" * 4097},
        {"value": "\ud800"},
        {"value": b""},
        {"expires_at": NOON.replace(tzinfo=None)},
    ],
    ids=str,
)
def test_what_can_not_be_kept_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        replace(SESSION, **wrong)


def test_what_a_value_is_does_not_show_it() -> None:
    assert "a value" not in repr(SESSION)
