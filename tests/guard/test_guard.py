"""Keyguard and AsyncKeyguard: the same behaviour, awaited or not."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import inspect
import json
import pickle
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import keyguard
from keyguard import (
    Allow,
    AsyncKeyguard,
    ConfigurationError,
    Deny,
    InvalidValueError,
    Keyguard,
    KeyStatus,
    NotFoundError,
    Reason,
    RefusedError,
    RevocationReason,
    Settings,
    StoreUnavailableError,
)
from keyguard.core.keys.commit import Commit
from keyguard.core.keys.records import Key
from keyguard.stores.memory.keys import AsyncMemoryStore, MemoryStore
from tests.loops import event_loop
from tests.stores.changes import revoking
from tests.world import StandingClock, World


class Guard:
    """A guard of either flavour, called as if it were sync."""

    def __init__(self, real: Any, runner: asyncio.Runner) -> None:
        self._real, self._runner = real, runner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        if name in ("keys", "organizations"):
            return Guard(value, self._runner)
        return self._waiting(value) if callable(value) else value

    def _waiting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            return self._runner.run(result) if inspect.iscoroutine(result) else result

        return call


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(params=["sync", "async"])
def guard(request: pytest.FixtureRequest, world: World) -> Iterator[Any]:
    with event_loop() as runner:
        real = world.guard if request.param == "sync" else world.async_guard
        yield Guard(real, runner)


def bearer(token: str) -> list[str | bytes]:
    return [f"Bearer {token}"]


def elsewhere(world: World, key: Key) -> None:
    """Revoke a key as another process would."""
    assert world.store.commit(revoking(key, world.clock.now))


def test_an_issued_key_is_let_in_as_who_it_is(guard: Any, world: World) -> None:
    issued = guard.keys.issue(
        organization=world.acme.id,
        name="ci",
        scopes=["inference:write"],
        expires_in=timedelta(days=90),
        metadata={"team": "infra"},
    )

    decision = guard.authenticate(bearer(issued.token.reveal()))

    assert isinstance(decision, Allow)
    principal = decision.principal
    assert principal.key_id == issued.key.id
    assert principal.family == issued.key.family
    assert principal.organization == world.acme.id
    assert principal.scopes == {"inference:write"}
    assert principal.metadata == {"team": "infra"}
    assert principal.has_scopes("inference:write")
    assert not principal.has_scopes("inference:write", "admin")


def test_an_organization_is_found_by_id_and_by_slug(guard: Any, world: World) -> None:
    assert guard.organizations.get("acme") == guard.organizations.get(world.acme.id) == world.acme


def test_an_organization_s_name_is_its_slug_unless_told(guard: Any) -> None:
    assert guard.organizations.create("plain").name == "plain"


@pytest.mark.parametrize("slug", ["", "A", "a_b", "-a", "a-", "a" * 64, "org_4fKq0ZbT1mXw8Ry", "é"])
def test_a_slug_that_is_none_is_refused(guard: Any, slug: str) -> None:
    with pytest.raises(InvalidValueError, match="not a valid organization slug"):
        guard.organizations.create(slug)


def test_a_slug_is_given_once(guard: Any) -> None:
    with pytest.raises(RefusedError, match="'acme' exists already"):
        guard.organizations.create("acme")


@pytest.mark.parametrize("name", ["nope", "org_0000000000000000", ""])
def test_an_unknown_organization_is_not_found(guard: Any, name: str) -> None:
    with pytest.raises(NotFoundError, match="no organization"):
        guard.organizations.get(name)
    with pytest.raises(NotFoundError, match="no organization"):
        guard.keys.issue(organization=name, name="x")
    with pytest.raises(NotFoundError, match="no organization"):
        guard.keys.list(organization=name)
    with pytest.raises(NotFoundError, match="no organization"):
        guard.organizations.disable(name)


def test_lists_page_by_cursor_oldest_first(guard: Any, world: World) -> None:
    made = []
    for number in range(5):
        world.clock.advance(timedelta(seconds=1))
        made.append(guard.keys.issue(organization="acme", name=f"key {number}").key)
    guard.keys.issue(organization="other", name="not listed")

    first = guard.keys.list(organization="acme", limit=2)
    second = guard.keys.list(organization="acme", limit=2, after=first.next)
    third = guard.keys.list(organization="acme", limit=2, after=second.next)

    assert [*first, *second, *third] == made
    assert (len(first), len(second), len(third)) == (2, 2, 1)
    assert third.next is None
    assert len(guard.keys.list()) == 6
    assert [o.slug for o in guard.organizations.list()] == ["acme", "other"]


@pytest.mark.parametrize("limit", [0, -1, 1001, "7", None, 1.5])
def test_a_page_size_out_of_range_is_refused(guard: Any, limit: Any) -> None:
    with pytest.raises(InvalidValueError, match="1 to 1000"):
        guard.keys.list(limit=limit)


def test_a_revoked_key_is_refused_on_the_next_request(guard: Any) -> None:
    issued = guard.keys.issue(organization="acme", name="x")
    field = bearer(issued.token.reveal())
    assert isinstance(guard.authenticate(field), Allow)

    revoked = guard.keys.revoke(issued.key.id, reason="key compromise", note="leaked")

    assert revoked.revoked_reason is RevocationReason.KEY_COMPROMISE
    assert revoked.revoked_note == "leaked"
    assert guard.authenticate(field) == Deny(
        Reason.KEY_REVOKED, issued.key.id, issued.key.organization
    )


def test_the_first_revocation_stays(guard: Any, world: World) -> None:
    key = guard.keys.issue(organization="acme", name="x").key
    first = guard.keys.revoke(key.id, reason="superseded", note="first")
    world.clock.advance(timedelta(days=1))

    assert guard.keys.revoke(key.id, reason="key compromise", note="second") == first


def test_revoking_needs_no_reason_but_refuses_a_note_that_breaks_a_log(guard: Any) -> None:
    key = guard.keys.issue(organization="acme", name="x").key

    with pytest.raises(InvalidValueError, match="control characters"):
        guard.keys.revoke(key.id, note="a\nb")
    assert guard.keys.get(key.id).revoked_at is None
    assert guard.keys.revoke(key.id).revoked_reason is RevocationReason.UNSPECIFIED


@pytest.mark.parametrize("action", ["get", "revoke", "update"])
def test_an_unknown_key_is_not_found(guard: Any, action: str) -> None:
    with pytest.raises(NotFoundError, match="no key '0000000000000000'"):
        getattr(guard.keys, action)("0000000000000000")


def test_a_key_of_another_organization_looks_like_an_unknown_one(guard: Any, world: World) -> None:
    key = guard.keys.issue(organization="acme", name="x").key

    assert guard.keys.get(key.id, organization=world.acme.id) == key
    with pytest.raises(NotFoundError) as foreign:
        guard.keys.get(key.id, organization=world.other.id)
    with pytest.raises(NotFoundError) as unknown:
        guard.keys.get("0" * 16, organization=world.other.id)
    assert str(foreign.value).replace(key.id, "0" * 16) == str(unknown.value)


def test_an_update_changes_what_is_given_and_is_felt_at_once(guard: Any, world: World) -> None:
    issued = guard.keys.issue(
        organization="acme", name="x", scopes=["inference:read"], metadata={"a": "b"}
    )
    field = bearer(issued.token.reveal())
    assert isinstance(guard.authenticate(field, scopes=["inference:read"]), Allow)
    end = world.clock.now + timedelta(days=1)

    changed = guard.keys.update(issued.key.id, scopes=["analytics:read"], expires_at=end)

    assert changed.scopes == {"analytics:read"}
    assert changed.expires_at == end
    assert (changed.name, changed.metadata) == ("x", {"a": "b"})
    assert isinstance(guard.authenticate(field, scopes=["inference:read"]), Deny)
    assert guard.keys.update(issued.key.id, expires_at=None).expires_at is None


def test_a_revoked_key_is_not_updated(guard: Any) -> None:
    key = guard.keys.issue(organization="acme", name="x").key
    guard.keys.revoke(key.id)

    with pytest.raises(RefusedError, match="is revoked, which is final"):
        guard.keys.update(key.id, name="y")


def test_a_disabled_organization_s_keys_pause(guard: Any, world: World) -> None:
    issued = guard.keys.issue(organization="acme", name="x")
    field = bearer(issued.token.reveal())
    assert isinstance(guard.authenticate(field), Allow)

    disabled = guard.organizations.disable("acme")
    world.clock.advance(timedelta(seconds=1))

    assert guard.organizations.disable("acme") == disabled
    refused = guard.authenticate(field)
    assert isinstance(refused, Deny)
    assert refused.reason is Reason.ORGANIZATION_DISABLED
    with pytest.raises(RefusedError, match="enable it before issuing"):
        guard.keys.issue(organization="acme", name="y")
    assert guard.organizations.enable("acme").disabled_at is None
    assert isinstance(guard.authenticate(field), Allow)


def test_a_key_ends_at_its_instant_also_when_it_is_warm(guard: Any, world: World) -> None:
    issued = guard.keys.issue(organization="acme", name="x", expires_in=timedelta(seconds=2))
    field = bearer(issued.token.reveal())
    assert issued.key.expires_at is not None

    world.clock.advance(timedelta(seconds=2) - timedelta(microseconds=1))
    assert isinstance(guard.authenticate(field), Allow)
    world.clock.advance(timedelta(microseconds=1))
    refused = guard.authenticate(field)

    assert isinstance(refused, Deny)
    assert refused.reason is Reason.KEY_EXPIRED
    assert guard.keys.get(issued.key.id).status(world.clock.now) is KeyStatus.EXPIRED


def test_a_key_starts_at_its_instant(guard: Any, world: World) -> None:
    start = world.clock.now + timedelta(seconds=2)
    issued = guard.keys.issue(
        organization="acme", name="x", not_before=start, expires_in=timedelta(hours=1)
    )
    field = bearer(issued.token.reveal())

    refused = guard.authenticate(field)
    assert isinstance(refused, Deny)
    assert refused.reason is Reason.KEY_NOT_YET_VALID
    assert issued.key.expires_at == start + timedelta(hours=1)
    world.clock.advance(timedelta(seconds=2))
    assert isinstance(guard.authenticate(field), Allow)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": ""}, "1 to 200 characters"),
        ({"name": " "}, "1 to 200 characters"),
        ({"name": "a" * 201}, "1 to 200 characters"),
        ({"name": "a\x1b[31m"}, "control characters"),
        ({"name": 7}, "1 to 200 characters"),
        ({"scopes": "inference:read"}, "scopes are a list"),
        ({"scopes": ["inference:reed"]}, "unknown scope 'inference:reed'"),
        ({"scopes": ["a b"]}, "is not a valid scope"),
        ({"expires_in": timedelta(0)}, "positive timedelta"),
        ({"expires_in": 90}, "positive timedelta"),
        ({"expires_in": timedelta.max}, "year 9999"),
        ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "already have expired"),
        ({"expires_at": datetime(2030, 1, 1)}, "aware datetime"),  # noqa: DTZ001 - the point
        ({"expires_at": "2030-01-01"}, "aware datetime"),
        (
            {"expires_in": timedelta(1), "expires_at": datetime(2030, 1, 1, tzinfo=UTC)},
            "not both",
        ),
        (
            {
                "not_before": datetime(2031, 1, 1, tzinfo=UTC),
                "expires_at": datetime(2030, 1, 1, tzinfo=UTC),
            },
            "before it starts",
        ),
        ({"metadata": {"a": 1}}, "strings to strings"),
        ({"metadata": {"a": "b" * 501}}, "at most"),
        ({"metadata": ["a"]}, "strings to strings"),
    ],
)
def test_a_key_that_can_t_be_is_refused_and_nothing_is_written(
    guard: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises((InvalidValueError, TypeError), match=said):
        guard.keys.issue(**({"organization": "acme", "name": "x"} | options))
    assert len(guard.keys.list()) == 0


def test_an_update_that_can_t_be_is_refused_and_nothing_is_written(
    guard: Any, world: World
) -> None:
    key = guard.keys.issue(organization="acme", name="x", not_before=world.clock.now).key

    for wrong in ({"name": ""}, {"scopes": ["nope"]}, {"expires_at": world.clock.now}):
        with pytest.raises(InvalidValueError):
            guard.keys.update(key.id, **wrong)
    assert guard.keys.get(key.id) == key


def test_required_scopes_outside_the_catalogue_are_a_programming_error(guard: Any) -> None:
    with pytest.raises(InvalidValueError, match="unknown scope"):
        guard.authenticate([], scopes=["inference:reed"])


def test_any_one_of_several_scopes_is_enough(guard: Any, world: World) -> None:
    field = bearer(world.token("analytics:read"))

    assert isinstance(guard.authenticate(field, any_of=["admin", "analytics:read"]), Allow)
    assert guard.authenticate(field, any_of=["admin", "inference:read"]) == Deny(
        Reason.SCOPE_MISSING,
        guard.authenticate(field).principal.key_id,
        world.acme.id,
        scopes=("admin", "inference:read"),
    )


def test_a_guard_closes_what_it_opened_and_not_what_it_was_given(guard: Any) -> None:
    class Closed(Exception):
        pass

    class Memory(MemoryStore):
        def close(self) -> None:
            raise Closed

    class AsyncMemory(AsyncMemoryStore):
        async def aclose(self) -> None:
            raise Closed

    Keyguard(Memory()).close()
    asyncio.run(AsyncKeyguard(AsyncMemory()).aclose())


def test_guards_are_context_managers() -> None:
    async def use() -> None:
        async with AsyncKeyguard("memory://") as guard:
            await guard.migrate()

    asyncio.run(use())
    with Keyguard("memory://") as guard:
        guard.migrate()


def test_settings_and_options_go_together() -> None:
    guard = Keyguard("memory://", settings=Settings(realm="one", prefix="one"), prefix="two")

    assert (guard.settings.realm, guard.settings.prefix) == ("one", "two")
    with pytest.raises(TypeError, match="colour"):
        Keyguard("memory://", colour="red")


def test_the_wrong_flavour_of_store_is_refused_at_start() -> None:
    with pytest.raises(ConfigurationError):
        Keyguard(AsyncMemoryStore())
    with pytest.raises(ConfigurationError):
        AsyncKeyguard(MemoryStore())
    with pytest.raises(ConfigurationError):
        Keyguard(object())


@pytest.mark.parametrize("kind", ["revoke", "disable", "scopes"])
def test_another_guard_of_the_process_feels_a_change_on_the_next_request(kind: str) -> None:
    world = World()
    world.issue("admin")  # so that the other is not the last that administers
    issued = world.issue("admin")
    field = bearer(issued.token.reveal())
    assert isinstance(asyncio.run(world.async_guard.authenticate(field)), Allow)

    match kind:
        case "revoke":
            world.guard.keys.revoke(issued.key.id)
        case "disable":
            world.guard.organizations.disable("acme")
        case "scopes":
            world.guard.keys.update(issued.key.id, scopes=[])

    refused = asyncio.run(world.async_guard.authenticate(field, scopes=["admin"]))
    assert isinstance(refused, Deny)


def test_another_process_feels_a_revocation_within_max_staleness() -> None:
    world = World({"max_staleness": 5.0})
    issued = world.issue()
    field = bearer(issued.token.reveal())
    assert isinstance(world.guard.authenticate(field), Allow)

    elsewhere(world, issued.key)

    world.clock.advance(timedelta(seconds=5) - timedelta(microseconds=1))
    assert isinstance(world.guard.authenticate(field), Allow)
    world.clock.advance(timedelta(microseconds=1))
    assert isinstance(world.guard.authenticate(field), Deny)


def test_a_store_that_goes_down_is_felt_within_max_staleness() -> None:
    world = World({"max_staleness": 5.0})
    field = bearer(world.token())
    assert isinstance(world.guard.authenticate(field), Allow)

    def down(key_id: str) -> Any:
        raise StoreUnavailableError("down")

    world.store.find_key = down  # type: ignore[method-assign]
    world.clock.advance(timedelta(seconds=5))
    refused = world.guard.authenticate(field)

    assert isinstance(refused, Deny)
    assert refused.reason is Reason.STORE_UNAVAILABLE


def test_a_key_created_after_its_id_was_refused_works_at_once() -> None:
    world = World()
    issued = world.issue()
    field = bearer(issued.token.reveal())
    record = world.store._keys.pop(issued.key.id)
    assert isinstance(world.guard.authenticate(field), Deny)

    world.store._keys[issued.key.id] = record

    assert isinstance(world.guard.authenticate(field), Allow)


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_key_revoked_while_it_was_looked_up_is_not_served(flavour: str) -> None:
    """The look-up reads the live key, then the revocation happens, then the look-up goes on."""
    world = World()
    issued = world.issue()
    read = world.store.find_key
    revoke = [True]

    def find_key(key_id: str) -> Any:
        record = read(key_id)
        if revoke:
            revoke.clear()
            if flavour == "sync":
                world.guard.keys.revoke(key_id)
            else:
                assert record is not None
                elsewhere(world, record.key)
                world.async_guard._ports.tokens.forget([key_id])
        return record

    world.store.find_key = find_key  # type: ignore[method-assign]
    field = bearer(issued.token.reveal())
    if flavour == "sync":
        decision = world.guard.authenticate(field)
    else:
        decision = asyncio.run(world.async_guard.authenticate(field))

    assert isinstance(decision, Deny)
    assert decision.reason is Reason.KEY_REVOKED


def test_a_key_that_changes_under_every_look_is_unavailable_not_served() -> None:
    world = World()
    issued = world.issue()
    read = world.store.find_key

    def find_key(key_id: str) -> Any:
        record = read(key_id)
        world.guard.keys.update(key_id, name=f"{record.key.name}'")  # type: ignore[union-attr]
        return record

    def update_key_without_looking(key_id: str, **_: Any) -> None:
        world.guard._ports.tokens.forget([key_id])

    world.guard.keys.update = update_key_without_looking  # type: ignore[assignment, method-assign]
    world.store.find_key = find_key  # type: ignore[method-assign]
    decision = world.guard.authenticate(bearer(issued.token.reveal()))

    assert decision == Deny(Reason.STORE_UNAVAILABLE, issued.key.id)


@pytest.mark.parametrize(
    ("method", "operation"),
    [("commit", "update"), ("end", "revoke"), ("end", "revoke_family"), ("end", "disable")],
)
def test_a_failed_change_is_forgotten_all_the_same(method: str, operation: str) -> None:
    """A change whose acknowledgement was lost may have happened."""
    world = World()
    issued = world.issue("inference:read")
    field = bearer(issued.token.reveal())
    assert isinstance(world.guard.authenticate(field, scopes=["inference:read"]), Allow)
    really = getattr(world.store, method)

    def made_unheard(asked: object) -> None:
        really(asked)
        raise StoreUnavailableError("the answer got lost")

    keys, organizations = world.guard.keys, world.guard.organizations
    operations: dict[str, Callable[[], object]] = {
        "update": lambda: keys.update(issued.key.id, scopes=[]),
        "revoke": lambda: keys.revoke(issued.key.id),
        "revoke_family": lambda: keys.revoke_family(issued.key.family),
        "disable": lambda: organizations.disable("acme"),
    }
    setattr(world.store, method, made_unheard)
    with pytest.raises(StoreUnavailableError):
        operations[operation]()

    assert isinstance(world.guard.authenticate(field, scopes=["inference:read"]), Deny)


def test_an_async_store_that_hangs_is_given_up() -> None:
    class Hanging(AsyncMemoryStore):
        async def find_key(self, key_id: str) -> Any:
            await asyncio.Event().wait()

    world = World()
    guard = AsyncKeyguard(Hanging(), settings=world.guard.settings, store_timeout=0.001)

    decision = asyncio.run(guard.authenticate(bearer(world.token())))

    assert isinstance(decision, Deny)
    assert decision.reason is Reason.STORE_UNAVAILABLE


def test_a_management_call_that_hangs_says_that_its_outcome_is_unknown() -> None:
    class Hanging(AsyncMemoryStore):
        async def commit(self, commit: Commit) -> bool:
            return await asyncio.Event().wait()

    guard = AsyncKeyguard(Hanging(), management_timeout=0.001)

    with pytest.raises(
        StoreUnavailableError, match=r"0\.001 seconds.*may have been made: check before"
    ):
        asyncio.run(guard.organizations.create("acme"))


def test_a_hook_that_fails_changes_no_decision(caplog: pytest.LogCaptureFixture) -> None:
    def failing(event: object) -> None:
        raise RuntimeError("hook")

    seen: list[object] = []
    guard = Keyguard("memory://", hooks=[failing, seen.append], clock=StandingClock())

    assert guard.authenticate([]) == Deny(Reason.CREDENTIALS_MISSING)
    assert len(seen) == 1
    assert "a keyguard hook failed on AccessRefused" in caplog.text


def test_operations_show_their_flow_s_signature_and_documentation() -> None:
    guard = Keyguard("memory://")

    assert "expires_in" in inspect.signature(guard.keys.issue).parameters
    assert "shown here, once" in (guard.keys.issue.__doc__ or "")
    assert keyguard.Keyguard("memory://").keys.list(limit=1).items == ()


def test_a_refusal_is_falsy_and_an_admission_truthy() -> None:
    world = World()

    assert not world.guard.authenticate([])
    assert world.guard.authenticate(bearer(world.token()))


def test_a_guard_is_not_extended_for_the_warm_path_would_not_call_it() -> None:
    for guard in (Keyguard, AsyncKeyguard):
        with pytest.raises(TypeError, match="wrap it, or pass it hooks"):
            type("Mine", (guard,), {})


@pytest.mark.parametrize("flavour", ["sync", "async"])
@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda field: {"authorization": field}, "are a list, not a dict"),
        (lambda field: {field}, "are a list, not a set"),
        (lambda field: iter([field]), "are a list, not a list_iterator"),
        (lambda field: [("authorization", field)], "not a tuple"),
        (lambda field: [bytearray(field.encode())], "not a bytearray"),
        (lambda field: None, "not a NoneType"),
    ],
)
def test_fields_of_the_wrong_shape_are_a_programming_error_that_shows_no_token(
    flavour: str, wrap: Any, said: str
) -> None:
    world = World()
    token = world.token()

    with pytest.raises(InvalidValueError, match=said) as refused:
        if flavour == "sync":
            world.guard.authenticate(wrap(f"Bearer {token}"))
        else:
            asyncio.run(world.async_guard.authenticate(wrap(f"Bearer {token}")))

    trace = traceback.TracebackException.from_exception(refused.value, capture_locals=True)
    ours = [frame for frame in trace.stack if "/src/keyguard/" in frame.filename]
    assert ours
    assert not any(token in repr(frame.locals) for frame in ours)


def test_an_empty_any_of_is_refused_and_lets_nobody_in() -> None:
    world = World()
    field = bearer(world.token())

    with pytest.raises(InvalidValueError, match="any_of is empty"):
        world.guard.authenticate(field, any_of=[])
    decision = world.guard.authenticate(field)
    assert isinstance(decision, Allow)
    with pytest.raises(InvalidValueError, match="at least one scope"):
        decision.principal.has_scopes()


def test_what_requests_of_one_key_share_does_not_change() -> None:
    world = World()
    decision = world.guard.authenticate(bearer(world.token(metadata={"a": "b"})))
    assert isinstance(decision, Allow)
    principal = decision.principal

    with pytest.raises(AttributeError, match="does not change"):
        principal.grant.exact = frozenset({"admin"})
    with pytest.raises(TypeError, match="does not change"):
        principal.metadata["a"] = "c"  # type: ignore[index]
    with pytest.raises(TypeError, match="does not change"):
        principal.metadata.update(a="c")  # type: ignore[attr-defined]


def test_a_principal_and_a_decision_can_be_copied_pickled_and_shown() -> None:
    world = World()
    issued = world.issue("inference:*", metadata={"plan": "gold"})
    decision = world.guard.authenticate(bearer(issued.token.reveal()))
    assert isinstance(decision, Allow)
    principal = decision.principal

    for value in (principal, decision, principal.grant):
        assert copy.copy(value) == copy.deepcopy(value) == pickle.loads(pickle.dumps(value))
        assert copy.deepcopy(value) == value
    again = pickle.loads(pickle.dumps(principal))
    assert again.has_scopes("inference:read")
    assert not again.has_scopes("admin")
    shown = repr(dataclasses.asdict(principal)) + repr(dataclasses.asdict(decision))
    assert issued.token.reveal() not in shown
    assert dataclasses.asdict(principal)["metadata"] == {"plan": "gold"}


def test_a_key_can_be_copied_pickled_and_written_as_json() -> None:
    key = World().issue("admin", metadata={"a": "b"}).key

    assert copy.deepcopy(key) == pickle.loads(pickle.dumps(key)) == key
    assert json.loads(json.dumps(dataclasses.asdict(key), default=str))["metadata"] == {"a": "b"}
