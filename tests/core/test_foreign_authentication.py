"""Tokens of other systems, authenticated over scripted ports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from keyguard import Allow, Deny, Reason, StoreUnavailableError
from keyguard.core.access.authenticate import authenticate
from keyguard.core.keys.records import KeyRecord
from keyguard.core.tokens.foreign import ForeignFormat, read_formats
from keyguard.runtime.sync import run_sync
from tests.core.scripted import MARK, ScriptedPorts
from tests.core.test_authenticate import FIELD, KEY, NOW, POLICY, RECORD

FOREIGN = replace(POLICY, foreign=read_formats(["drf", "prefix:4", "prefix:5", "token"]))
TOKEN = "AbCdEfGh.q7Zp0Lw3Vn8XcT5bRy2Kd9Hs6Jf4Mg1A"
IDS = [one.lookup(TOKEN) for one in FOREIGN.foreign]


class Records(ScriptedPorts):
    """Ports over some records.

    Args:
        policy: What the service has settled.
        records: The records by key id.
        genuine: The ids of the keys whose secret the token has.
        down_at: The id under which the store fails.
    """

    def __init__(
        self,
        policy: Any,
        records: dict[str, KeyRecord],
        genuine: set[str],
        down_at: str | None = None,
    ) -> None:
        super().__init__(policy)
        self.looked_up: list[str] = []
        self._records = records
        self._genuine = genuine
        self._down_at = down_at

    async def find_key(self, key_id: str, *, fresh: bool) -> Any:
        self.looked_up.append(key_id)
        if key_id == self._down_at:
            raise StoreUnavailableError("down")
        return self._records.get(key_id), MARK

    async def verify(self, token: Any, digest: str | None, client: str, key_id: str) -> bool:
        return digest is not None and self.looked_up[-1] in self._genuine

    def now(self) -> Any:
        return NOW

    def remember(self, *found: Any) -> bool:
        return True


def stepped(
    field: str, records: dict[str, KeyRecord], genuine: set[str], policy: Any = FOREIGN
) -> tuple[list[str], Any]:
    """Authenticate over some records; return the ids that were looked up, and the decision."""
    ports: Any = Records(policy, records, genuine)
    decision = run_sync(authenticate(ports, [field]))
    return ports.looked_up, decision


def kept_as(key_id: str | None) -> KeyRecord:
    assert key_id is not None
    return replace(RECORD, key=replace(KEY, id=key_id))


def test_a_token_that_is_not_our_own_is_tried_as_one_of_each_format_in_order() -> None:
    looked_up, decision = stepped(f"Bearer {TOKEN}", {}, set())

    assert looked_up == IDS
    assert len(set(IDS)) == 4
    assert isinstance(decision, Deny)
    assert decision.reason is Reason.KEY_UNKNOWN


@pytest.mark.parametrize("at", range(4))
def test_the_first_format_that_finds_a_genuine_key_lets_it_in(at: int) -> None:
    key_id = IDS[at]
    looked_up, decision = stepped(f"Bearer {TOKEN}", {str(key_id): kept_as(key_id)}, {str(key_id)})

    assert isinstance(decision, Allow)
    assert decision.principal.key_id == key_id
    assert looked_up == IDS[: at + 1]


def test_a_wrong_secret_under_one_format_may_be_right_under_the_next() -> None:
    records = {str(one): kept_as(one) for one in IDS[:2]}

    _, decision = stepped(f"Bearer {TOKEN}", records, {str(IDS[1])})

    assert isinstance(decision, Allow)
    assert decision.principal.key_id == IDS[1]


def test_a_genuine_key_that_is_dead_ends_the_search() -> None:
    dead = kept_as(IDS[0])
    dead = replace(dead, key=replace(dead.key, revoked_at=NOW))
    records = {str(IDS[0]): dead, str(IDS[1]): kept_as(IDS[1])}

    looked_up, decision = stepped(f"Bearer {TOKEN}", records, {str(one) for one in IDS})

    assert isinstance(decision, Deny)
    assert decision.reason is Reason.KEY_REVOKED
    assert looked_up == IDS[:1]


def test_a_token_of_our_own_is_looked_up_as_that_only() -> None:
    looked_up, _ = stepped(FIELD, {}, set())

    assert looked_up == [KEY.id]


@pytest.mark.parametrize("field", [f"Bearer {TOKEN}", "Bearer AbCdEfGh.short"])
def test_without_formats_nothing_is_looked_up(field: str) -> None:
    assert stepped(field, {}, set(), POLICY) == ([], Deny(Reason.TOKEN_MALFORMED))


def test_a_bar_is_taken_only_for_sanctum() -> None:
    sanctum = replace(POLICY, foreign=read_formats(["sanctum"]))

    assert stepped("Bearer 42|abcdef", {}, set()) == ([], Deny(Reason.CREDENTIALS_MALFORMED))
    assert stepped("Bearer 42|abcdef", {}, set(), sanctum)[0] == [sanctum.foreign[0].id_of("42")]
    assert stepped("Bearer |", {}, set(), sanctum) == ([], Deny(Reason.TOKEN_MALFORMED))


def test_a_fast_hash_of_a_whole_token_is_asked_for_last_and_not_named() -> None:
    looked_up, decision = stepped(f"Bearer {TOKEN}", {}, set())

    plain = ForeignFormat("token").lookup(TOKEN)
    assert looked_up[-1] == plain
    assert decision == Deny(Reason.KEY_UNKNOWN, None)


@pytest.mark.parametrize("at", range(4))
def test_while_the_store_is_down_no_fast_hash_of_a_whole_token_is_named(at: int) -> None:
    ports: Any = Records(FOREIGN, {}, set(), down_at=IDS[at])
    decision: Any = run_sync(authenticate(ports, [f"Bearer {TOKEN}"]))
    assert decision.reason is Reason.STORE_UNAVAILABLE
    assert decision.key_id == (None if at == 3 else IDS[at])


def test_a_key_that_was_found_by_a_fast_hash_is_named() -> None:
    plain = str(ForeignFormat("token").lookup(TOKEN))

    _, decision = stepped(f"Bearer {TOKEN}", {plain: kept_as(plain)}, set())

    assert decision == Deny(Reason.SECRET_WRONG, plain)
