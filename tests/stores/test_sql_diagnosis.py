"""What the acknowledgement of an SQL database is worth, where no server of the tests is so set."""

from __future__ import annotations

import pytest

from keyguard.stores.sql.diagnosis import _of_postgresql, _of_sqlite


@pytest.mark.parametrize(
    ("commit", "standbys", "says"),
    [
        ("on", "one, two", "on its disk and on the synchronous standbys 'one, two'"),
        ("remote_apply", "one", "on its disk and on the synchronous standbys 'one'"),
        ("local", "one", "on its disk alone"),
    ],
)
def test_postgresql_waits_for_the_standbys_that_are_named(
    commit: str, standbys: str, says: str
) -> None:
    finding = _of_postgresql(commit, standbys)
    assert finding.is_fine
    assert says in finding.text


@pytest.mark.parametrize(("level", "is_fine"), [(0, False), (1, False), (2, True), (3, True)])
def test_an_engine_that_does_not_wait_for_the_disk_is_a_problem(level: int, is_fine: bool) -> None:
    assert _of_sqlite(level).is_fine == is_fine
