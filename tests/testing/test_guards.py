"""Guards in memory for the tests of applications."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
import time_machine
from freezegun import freeze_time
from werkzeug.test import Client
from werkzeug.wrappers import Response

from keyguard import (
    Allow,
    AsyncKeyguard,
    ConfigurationError,
    Deny,
    InvalidValueError,
    Keyguard,
    Reason,
    Settings,
)
from keyguard.adapters.wsgi import KeyguardMiddleware
from keyguard.settings.hashing import scheme_of
from keyguard.testing import ApiKey, MemoryGuards, MovingClock
from tests.examples.pages import ROOT, page
from tests.world import CATALOGUE

HOUR = timedelta(hours=1)
PEPPER = "vUq3xJ9tRwz0HdC7YkLmNpQsEaGiBfXo"


@pytest.fixture
def keyguard_settings() -> Settings:
    return Settings(prefix="aiaas_live", catalogue=CATALOGUE, hasher="argon2id", peppers=[PEPPER])


def decide(guard: Keyguard, key: ApiKey) -> str:
    decision = guard.authenticate([key.headers["Authorization"]])
    return "let in" if isinstance(decision, Allow) else decision.reason.value


@pytest.mark.parametrize("carrier", ["bearer", "basic", "scheme:Api-Key", "header:X-API-Key"])
def test_the_headers_of_a_key_carry_it_as_the_guard_reads_it(
    carrier: str, memory_guards: MemoryGuards
) -> None:
    guards = memory_guards.with_settings(carriers=[carrier])
    client = Client(KeyguardMiddleware(Response("let in"), guards.guard))
    assert client.get("/", headers=guards.issue().headers).status_code == 200


def test_both_flavours_let_a_key_in_and_see_the_clock_move(
    memory_guards: MemoryGuards, api_key: Callable[..., ApiKey]
) -> None:
    key = api_key(scopes=["inference:write"], expires_in=HOUR)
    fields = [key.headers["Authorization"]]
    assert isinstance(asyncio.run(memory_guards.async_guard.authenticate(fields)), Allow)
    assert decide(memory_guards.guard, key) == "let in"
    assert isinstance(memory_guards.clock, MovingClock)

    memory_guards.clock.advance(HOUR)

    refused = asyncio.run(memory_guards.async_guard.authenticate(fields))
    assert isinstance(refused, Deny)
    assert refused.reason is Reason.KEY_EXPIRED
    assert decide(memory_guards.guard, key) == "key_expired"
    assert len(memory_guards.events) == 2


def test_the_settings_of_the_service_hold_but_tokens_are_hashed_fast(
    memory_guards: MemoryGuards, api_key: Callable[..., ApiKey]
) -> None:
    key = api_key()

    assert key.token.reveal().startswith("aiaas_live_")
    assert set(memory_guards.guard.keys.digests()) == {"sha256"}
    assert scheme_of(memory_guards.store._digests[key.id]) == "sha256"
    with pytest.raises(InvalidValueError, match="unknown scope"):
        api_key(scopes=["inference:raed"])


def test_changed_settings_stay_with_the_guards_that_have_them(memory_guards: MemoryGuards) -> None:
    strict = memory_guards.with_settings(realm="strict")
    key = memory_guards.issue()

    assert (strict.guard.settings.realm, memory_guards.guard.settings.realm) == ("strict", "api")
    assert decide(strict.guard, key) == "let in"


def test_the_guards_share_the_store_of_a_guard_that_is_there() -> None:
    with Keyguard("memory://", prefix="aiaas_live") as guard:
        shared = MemoryGuards.of(guard)
        assert shared.guard is guard
        assert decide(guard, shared.issue()) == "let in"
    async_guard = AsyncKeyguard("memory://")
    key = MemoryGuards.of(async_guard).issue()
    assert isinstance(asyncio.run(async_guard.authenticate([key.headers["Authorization"]])), Allow)
    with pytest.raises(ConfigurationError, match="memory://"):
        MemoryGuards.of(Keyguard("sqlite:///keys.db"))


def test_the_token_does_not_show(api_key: Callable[..., ApiKey]) -> None:
    key = api_key()

    assert key.token.reveal() not in repr(key)


def test_a_clock_moves_forward_from_a_time_with_a_zone() -> None:
    with pytest.raises(InvalidValueError, match="forward"):
        MovingClock().advance(timedelta(seconds=-1))
    with pytest.raises(InvalidValueError, match="time zone"):
        MovingClock(datetime(2026, 1, 1))  # noqa: DTZ001


def limited(guard: Keyguard) -> ApiKey:
    issued = guard.keys.issue(organization="acme", name="x", expires_in=HOUR)
    return ApiKey(key=issued.key, token=issued.token)


@pytest.mark.parametrize("is_older", [True, False])
def test_time_machine_ends_keys_but_not_windows(is_older: bool) -> None:
    with Keyguard("memory://") as older, time_machine.travel(0, tick=False) as travel:
        guard = older if is_older else Keyguard("memory://")
        guard.organizations.create("acme")
        key, monotonic = limited(guard), time.monotonic()
        assert decide(guard, key) == "let in"
        travel.shift(HOUR)
        assert decide(guard, key) == "key_expired"
        assert time.monotonic() - monotonic < HOUR.total_seconds()
        guard.close()


@pytest.mark.parametrize(("is_older", "said"), [(True, "let in"), (False, "key_expired")])
def test_freezegun_ends_remembered_keys_of_guards_that_are_made_in_its_block(
    is_older: bool, said: str
) -> None:
    with Keyguard("memory://") as older, freeze_time("2030-01-01") as frozen:
        guard = older if is_older else Keyguard("memory://")
        guard.organizations.create("acme")
        key, monotonic = limited(guard), time.monotonic()
        assert decide(guard, key) == "let in"
        frozen.tick(HOUR)
        assert decide(guard, key) == said
        assert time.monotonic() - monotonic == HOUR.total_seconds()
        guard.close()


def test_pytest_finds_the_plugin_which_imports_keyguard_only_when_it_is_used() -> None:
    plugins = tomllib.loads(page("pyproject.toml"))["project"]["entry-points"]["pytest11"]
    code = f"import sys, {plugins['keyguard']}; print('keyguard' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "src")},
    )

    assert done.stdout.strip() == "False"
