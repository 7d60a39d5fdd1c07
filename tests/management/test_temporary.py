"""Values that expire, as a guard keeps them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from keyguard import InvalidValueError
from keyguard.core.keys.temporary import Temporary
from tests.stored import Stored

DIGEST = "0123456789abcdef" * 4


def test_the_guard_s_clock_says_when_a_value_has_expired(stored: Stored) -> None:
    kept = stored.guard.management.temporary
    session = Temporary("session", DIGEST, "", stored.clock.now + timedelta(hours=12))
    kept.put(session)

    assert not kept.put(session)
    assert kept.find("session", DIGEST) == session
    stored.clock.advance(timedelta(hours=12))
    assert kept.find("session", DIGEST) is None
    assert not kept.replace(session)
    assert kept.take("session", DIGEST) is None


def test_a_value_that_was_dropped_is_gone(stored: Stored) -> None:
    kept = stored.guard.management.temporary
    session = Temporary("session", DIGEST, "", stored.clock.now + timedelta(hours=12))
    kept.put(session)

    kept.drop("session", DIGEST)
    kept.drop("session", DIGEST)

    assert kept.find("session", DIGEST) is None
    assert not kept.replace(session)


def test_what_is_no_digest_is_refused(stored: Stored) -> None:
    for call in (stored.guard.management.temporary.find, stored.guard.management.temporary.take):
        with pytest.raises(InvalidValueError, match="digest"):
            call("session", "kgc_something")
