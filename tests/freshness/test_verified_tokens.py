"""The memory of verified tokens."""

from __future__ import annotations

import multiprocessing
import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

from keyguard import Allow, IssuedKey, Secret
from keyguard.core.keys.records import KeyRecord
from keyguard.core.tokens.format import TokenFormat
from keyguard.freshness.verified_tokens import VerifiedTokens
from tests.world import StandingClock, World


class Cache:
    """A cache of its own over a world of keys."""

    def __init__(self, size: int = 3, max_staleness: float = 5.0) -> None:
        self.world = World()
        self.clock: StandingClock = self.world.clock
        self.tokens = VerifiedTokens(
            TokenFormat("aiaas_live"), size=size, max_staleness=max_staleness, clock=self.clock
        )

    def remember(self, issued: IssuedKey, mark: Any = None) -> bool:
        record = self.world.store.find_key(issued.key.id)
        assert isinstance(record, KeyRecord)
        allow = Allow(self.world.guard.settings.policy.principal(record))
        return self.tokens.remember(
            self.tokens.fingerprint(issued.token), record, allow, mark or self.tokens.begin()
        )

    def knows(self, issued: IssuedKey) -> bool:
        found = self.tokens.recall(b"Bearer " + issued.token.reveal().encode())
        return isinstance(found, Allow)


def test_what_was_verified_is_remembered_until_it_is_stale() -> None:
    cache = Cache(max_staleness=5.0)
    issued = cache.world.issue()
    assert not cache.knows(issued)

    assert cache.remember(issued)

    cache.clock.advance(timedelta(seconds=4.999))
    assert cache.knows(issued)
    cache.clock.advance(timedelta(seconds=0.001))
    assert not cache.knows(issued)


def test_a_look_up_outlasts_the_deletion_of_many_other_keys() -> None:
    cache = Cache()
    issued = cache.world.issue()
    mark = cache.tokens.begin()
    cache.tokens.forget_here(map(str, range(10_000)))

    assert cache.remember(issued, mark)


def test_what_changed_before_more_than_is_remembered_counts_for_a_look_up() -> None:
    cache = Cache()
    issued = cache.world.issue()
    mark = cache.tokens.begin()
    cache.tokens.forget_here([issued.key.id, *map(str, range(10_000))])

    assert not cache.remember(issued, mark)


def test_freshness_counts_from_before_the_look_up() -> None:
    cache = Cache(max_staleness=5.0)
    issued = cache.world.issue()
    mark = cache.tokens.begin()
    cache.clock.advance(timedelta(seconds=4))

    assert cache.remember(issued, mark)

    cache.clock.advance(timedelta(seconds=1))
    assert not cache.knows(issued)


def test_the_oldest_makes_room_for_the_newest() -> None:
    cache = Cache(size=3)
    issued = [cache.world.issue() for _ in range(5)]

    for one in issued:
        cache.remember(one)

    assert [cache.knows(one) for one in issued] == [False, False, True, True, True]
    assert len(cache.tokens) == 3


def test_remembering_again_counts_as_new() -> None:
    cache = Cache(size=2)
    first, second, third = (cache.world.issue() for _ in range(3))

    for one in (first, second, first, third):
        cache.remember(one)

    assert [cache.knows(one) for one in (first, second, third)] == [True, False, True]


def test_a_size_of_nothing_remembers_nothing() -> None:
    cache = Cache(size=0)
    issued = cache.world.issue()

    assert cache.remember(issued)
    assert not cache.knows(issued)


def test_forgetting_a_key_leaves_the_others() -> None:
    cache = Cache()
    one, other = cache.world.issue(), cache.world.issue()
    cache.remember(one)
    cache.remember(other)

    cache.tokens.forget([one.key.id])

    assert not cache.knows(one)
    assert cache.knows(other)


def test_forgetting_an_organization_drops_all_its_keys() -> None:
    cache = Cache()
    ours = [cache.world.issue(), cache.world.issue()]
    theirs = cache.world.issue(organization="other")
    for one in (*ours, theirs):
        cache.remember(one)

    cache.tokens.forget([cache.world.acme.id])

    assert [cache.knows(one) for one in (*ours, theirs)] == [False, False, True]


def test_a_look_up_that_began_before_a_change_is_not_believed() -> None:
    cache = Cache()
    key, bystander = cache.world.issue(), cache.world.issue(organization="other")
    mark = cache.tokens.begin()

    cache.tokens.forget([key.key.id])

    assert not cache.remember(key, mark)
    assert cache.remember(bystander, mark)
    assert cache.remember(key)


def test_a_look_up_that_began_before_its_organization_changed_is_not_believed() -> None:
    cache = Cache()
    issued = cache.world.issue()
    mark = cache.tokens.begin()

    cache.tokens.forget([cache.world.acme.id])

    assert not cache.remember(issued, mark)


def test_a_look_up_older_than_the_changes_kept_in_mind_is_not_believed() -> None:
    cache = Cache()
    issued = cache.world.issue()
    mark = cache.tokens.begin()
    cache.tokens.forget([issued.key.id])

    for number in range(2000):
        cache.tokens.forget([f"somebody else {number}"])

    assert not cache.remember(issued, mark)


def test_a_match_outlives_freshness_but_not_the_stored_digest() -> None:
    cache = Cache()
    issued = cache.world.issue()
    cache.remember(issued)
    record = cache.world.store.find_key(issued.key.id)
    assert isinstance(record, KeyRecord)
    cache.clock.advance(timedelta(hours=1))

    mine, other = (cache.tokens.fingerprint(key.token) for key in (issued, cache.world.issue()))
    assert cache.tokens.matched(mine, record.digest)
    assert not cache.tokens.matched(mine, "$sha256$other")
    assert not cache.tokens.matched(other, record.digest)


def test_clock_steps_neither_revive_nor_kill() -> None:
    cache = Cache(max_staleness=5.0)
    issued = cache.world.issue()
    cache.remember(issued)

    for hours in (1, -2, 1):
        cache.clock.now += timedelta(hours=hours)
        assert cache.knows(issued)
    cache.clock.uptime += 5
    for hours in (1, -2, 1):
        cache.clock.now += timedelta(hours=hours)
        assert not cache.knows(issued)


def test_only_the_usual_spelling_is_recognized() -> None:
    cache = Cache()
    issued = cache.world.issue()
    cache.remember(issued)
    token = issued.token.reveal().encode()

    for field in (b"bearer " + token, b"Bearer  " + token, token, b"Bearer " + token + b" ", b""):
        assert cache.tokens.recall(field) is None


def test_no_token_is_in_memory() -> None:
    cache = Cache()
    issued = cache.world.issue()
    cache.remember(issued)

    held = repr([(name, entry) for name, entry in cache.tokens._entries.items()])

    assert issued.token.reveal() not in held
    assert issued.token.reveal()[28:71] not in held


def test_many_threads_keep_the_bounds_and_the_books() -> None:
    cache = Cache(size=5)
    issued = [cache.world.issue() for _ in range(20)]

    def work(start: int) -> None:
        for step in range(300):
            one = issued[(start * 7 + step) % 20]
            cache.remember(one)
            if step % 5 == 0:
                cache.tokens.forget([one.key.id])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(cache.tokens) <= 5
    held = {name for names in cache.tokens._held.values() for name in names}
    assert held == set(cache.tokens._entries)


def _use_in_child(cache: Cache, issued: IssuedKey, answers: Any) -> None:
    answers.put((cache.knows(issued), cache.remember(issued), cache.knows(issued)))


def test_a_forked_child_starts_afresh_even_where_the_lock_was_held() -> None:
    cache = Cache()
    issued = cache.world.issue()
    cache.remember(issued)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    with cache.tokens._lock:
        child = context.Process(target=_use_in_child, args=(cache, issued, answers))
        child.start()

    assert answers.get(timeout=30) == (False, True, True)
    child.join()


def test_what_is_not_our_own_is_hashed_only_where_some_was_imported() -> None:
    for foreign in (False, True):
        cache = Cache()
        cache.tokens = VerifiedTokens(
            TokenFormat("aiaas_live"), size=3, max_staleness=5.0, clock=cache.clock, foreign=foreign
        )
        issued = cache.world.issue()
        other = replace(issued, token=Secret("AbCdEfGh.of-another-system"))
        cache.remember(issued)
        cache.remember(other)

        assert cache.knows(issued)
        assert cache.knows(other) is foreign
        assert cache.tokens.recall(b"Bearer " + b"x" * 513) is None
        assert cache.tokens.recall(b"Basic AbCdEfGh.of-another-system") is None


def test_what_a_replica_has_is_as_old_as_the_feed_s_last_answer() -> None:
    cache = Cache(max_staleness=5.0)
    issued = cache.world.issue()
    mark = cache.tokens.begin()
    cache.clock.advance(timedelta(seconds=1))
    cache.tokens.vouch(mark, "7-a")
    assert cache.tokens.mark_at("7-a", issued.key) == mark
    cache.clock.advance(timedelta(seconds=3.999))
    assert cache.tokens.mark_at("7-a", issued.key) == mark
    cache.clock.advance(timedelta(seconds=0.001))
    assert cache.tokens.mark_at("7-a", issued.key) is None


def test_only_where_the_feed_has_ended_is_a_replica_believed() -> None:
    cache = Cache()
    issued = cache.world.issue()
    assert cache.tokens.mark_at("7-a", issued.key) is None
    cache.tokens.vouch(cache.tokens.begin(), "7-a")
    assert [cache.tokens.knows(position) for position in ("7-a", "8-b")] == [True, False]
    assert cache.tokens.mark_at("8-b", issued.key) is None


def test_of_what_changed_since_a_replica_stood_there_it_is_not_believed() -> None:
    cache = Cache()
    changed, same = cache.world.issue(), cache.world.issue(organization="other")
    cache.tokens.vouch(cache.tokens.begin(), "7-a")
    later = cache.tokens.begin()
    cache.tokens.forget_here([changed.key.id])
    cache.tokens.vouch(later, "8-b")
    for position in ("7-a", "8-b"):  # which of the two came first at 8-b is not known
        assert cache.tokens.mark_at(position, changed.key) is None
        assert cache.tokens.mark_at(position, same.key) is not None
    cache.tokens.vouch(cache.tokens.begin(), "8-b")
    assert cache.tokens.mark_at("7-a", changed.key) is None
    assert cache.tokens.mark_at("8-b", changed.key) is not None
    cache.tokens.forget_here([same.key.organization])
    assert cache.tokens.mark_at("8-b", same.key) is None


def test_where_nobody_knows_what_changed_no_replica_is_believed() -> None:
    cache = Cache()
    issued = cache.world.issue()
    mark = cache.tokens.begin()
    cache.tokens.forget_all()
    cache.tokens.vouch(mark, "7-a")
    assert cache.tokens.mark_at("7-a", issued.key) is None


def test_the_oldest_position_makes_room_for_the_newest() -> None:
    cache = Cache()
    for position in [*map(str, range(64)), "0", "64"]:
        cache.tokens.vouch(cache.tokens.begin(), position)
    assert not cache.tokens.knows("1")
    assert all(cache.tokens.knows(position) for position in ("0", "2", "64"))
