"""A token appears in the one answer and nowhere else."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import gc
import json
import logging
import pickle
import traceback
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from keyguard import (
    AsyncKeyguard,
    InvalidValueError,
    IssuedKey,
    Keyguard,
    NotFoundError,
    Secret,
)
from keyguard.adapters import asgi, wsgi
from keyguard.adapters.flask import FlaskKeyguard
from keyguard.core.keys.commit import Commit
from keyguard.core.tokens.format import TokenFormat
from keyguard.stores.memory.keys import AsyncMemoryStore
from tests.adapters.stacks import Request, call_asgi, call_wsgi, stacks
from tests.world import World


def secret_of(token: str) -> str:
    parts = TokenFormat("aiaas_live").parse(token)
    assert parts is not None
    return parts.secret


def shows(text: str, token: str) -> bool:
    # A fast hash of the whole token would let a weak one be guessed.
    digests = [sha256(value.encode()) for value in (token, f"Bearer {token}")]
    hashed = [form for digest in digests for form in (digest.hexdigest(), repr(digest.digest()))]
    return any(form in text for form in (token, secret_of(token), *hashed))


@given(st.text(min_size=1))
def test_a_secret_never_shows(value: str) -> None:
    secret = Secret(value)

    assert secret.reveal() == value
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r}"):
        assert "**********" in text
        assert value not in text or value in "Secret('**********')"


@pytest.mark.parametrize(
    "leak",
    [
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        json.dumps,
        vars,
        lambda secret: dataclasses.asdict(IssuedKey(key=None, token=secret)),  # type: ignore[arg-type]
    ],
)
def test_what_would_copy_a_secret_refuses(leak: Any) -> None:
    with pytest.raises(TypeError):
        leak(Secret("vUq3xJ9tRwz0HdC7YkLmNpQsEaGiBfXo"))


def test_two_secrets_are_not_compared_in_passing() -> None:
    assert Secret("a") != Secret("a")


def test_an_issued_key_does_not_show_its_token() -> None:
    issued = World().issue()

    for text in (repr(issued), str(issued), f"{issued}", repr(dataclasses.fields(issued))):
        assert not shows(text, issued.token.reveal())


def test_nothing_that_is_stored_holds_the_token() -> None:
    world = World()
    issued = world.issue()

    record = world.store.find_key(issued.key.id)

    assert record is not None
    assert not shows(repr(dataclasses.asdict(record.organization)), issued.token.reveal())
    assert not shows(f"{record.key!r} {record.digest}", issued.token.reveal())
    assert record.digest not in repr(record)


def test_no_log_at_debug_shows_a_token(caplog: pytest.LogCaptureFixture) -> None:
    from keyguard.runtime.events import log_event

    caplog.set_level(logging.DEBUG)
    world = World({"hooks": [log_event]})
    token, dead = world.token("inference:write"), world.issue()
    world.guard.keys.revoke(dead.key.id)
    for stack in stacks(world):
        for sent in (token, dead.token.reveal(), token[:-1] + "~"):
            for path in ("/any", "/write", "/object/none"):
                stack.call(Request(path, authorization=(b"Bearer " + sent.encode(),)))

    assert caplog.text
    assert "key_revoked" in caplog.text
    assert not shows(caplog.text, token)
    assert not shows(caplog.text, dead.token.reveal())


def frames_of_keyguard(failure: BaseException) -> str:
    """Everything that an error reporter which captures locals would record of our frames."""
    found: list[str] = []
    pending: list[BaseException | None] = [failure]
    while pending:
        one = pending.pop()
        if one is None:
            continue
        pending += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if "/src/keyguard/" in frame.f_code.co_filename:
                found += [f"{frame.f_code.co_qualname}: {frame.f_locals!r}"]
        found.append("".join(traceback.format_exception_only(one)))
    return "\n".join(found)


class AppError(Exception):
    pass


async def failing_asgi(scope: Any, receive: Any, send: Any) -> None:
    raise AppError


def failing_wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    raise AppError


def failing_later(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"a"
    raise AppError


def flask_failing(guard: Keyguard) -> Any:
    app = Flask("failing")
    app.testing = True  # exceptions come out
    app.add_url_rule("/any", "view", lambda: failing_wsgi(None, None))
    FlaskKeyguard(app, guard)
    return app


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("adapter", ["asgi", "wsgi", "wsgi body", "flask"])
def test_an_application_s_error_shows_no_token_in_our_frames(adapter: str, *, warm: bool) -> None:
    world = World()
    token = world.token()
    request = Request(authorization=(b"Bearer " + token.encode(),))
    if warm:
        world.guard.authenticate(list(request.authorization))
        asyncio.run(world.async_guard.authenticate(list(request.authorization)))

    with pytest.raises(AppError) as failed:
        if adapter == "asgi":
            call_asgi(asgi.KeyguardMiddleware(failing_asgi, world.async_guard), request)
        elif adapter == "flask":
            call_wsgi(flask_failing(world.guard), request)
        else:
            app = failing_wsgi if adapter == "wsgi" else failing_later
            call_wsgi(wsgi.KeyguardMiddleware(app, world.guard), request)

    seen = frames_of_keyguard(failed.value)
    assert "__call__" in seen or "__next__" in seen
    assert not shows(seen, token)


class Failing:
    def __init__(self, world: World, failure: BaseException) -> None:
        self._store, self._failure = world.store, failure

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def find_key(self, key_id: str) -> Any:
        raise self._failure

    def close(self) -> None: ...


class AsyncFailing(Failing):
    async def find_key(self, key_id: str) -> Any:
        raise self._failure

    async def aclose(self) -> None: ...


@pytest.mark.parametrize("flavour", ["sync", "async"])
@pytest.mark.parametrize("adapter", [False, True])
def test_an_interrupted_look_up_shows_no_token_in_our_frames(
    flavour: str, *, adapter: bool
) -> None:
    """Cancellation and Ctrl-C are the only things that get out of a look-up."""
    world = World()
    token = world.token()
    settings = world.guard.settings
    failure = KeyboardInterrupt() if flavour == "sync" else asyncio.CancelledError()
    request = Request(authorization=(b"Bearer " + token.encode(),))

    with pytest.raises((KeyboardInterrupt, asyncio.CancelledError)) as failed:
        if flavour == "sync":
            guard = Keyguard(Failing(world, failure), settings=settings)
            if adapter:
                call_wsgi(wsgi.KeyguardMiddleware(failing_wsgi, guard), request)
            else:
                guard.authenticate(list(request.authorization))
        else:
            aguard = AsyncKeyguard(AsyncFailing(world, failure), settings=settings)
            if adapter:
                call_asgi(asgi.KeyguardMiddleware(failing_asgi, aguard), request)
            else:
                asyncio.run(aguard.authenticate(list(request.authorization)))

    seen = frames_of_keyguard(failed.value)
    assert "_identify" in seen
    assert not shows(seen, token)


class Waiting:
    """A store whose look-ups wait for ever."""

    def __init__(self, world: World) -> None:
        self._store = AsyncMemoryStore(world.store)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def find_key(self, key_id: str) -> Any:
        await asyncio.Event().wait()


def frames_of(coroutine: Any) -> str:
    """All that a suspended coroutine, and those that it awaits, hold in their frames."""
    found: list[str] = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None)
        if frame is not None and "/src/keyguard/" in frame.f_code.co_filename:
            found.append(f"{frame.f_code.co_qualname}: {frame.f_locals!r}")
        coroutine = getattr(coroutine, "cr_await", None)
    return "\n".join(found)


def test_a_suspended_look_up_that_is_cancelled_or_closed_shows_no_token_in_our_frames() -> None:
    world = World()
    token = world.token()
    guard: Any = AsyncKeyguard(Waiting(world), settings=world.guard.settings)  # type: ignore[arg-type]
    guard._ports.background.start = lambda: None

    async def interrupted() -> tuple[str, BaseException]:
        waiting = guard.authenticate([f"Bearer {token}"])
        task = asyncio.ensure_future(waiting)
        await asyncio.sleep(0)
        suspended = frames_of(waiting)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await task
        return suspended, cancelled.value

    suspended, cancelled = asyncio.run(interrupted())
    for seen in (suspended, frames_of_keyguard(cancelled)):
        assert "_look_up" in seen
        assert not shows(seen, token)


def test_a_coroutine_that_is_never_awaited_warns_without_the_token() -> None:
    world = World()
    token = world.token()

    deciding = [world.async_guard.authenticate([f"Bearer {token}"])]

    with pytest.warns(RuntimeWarning, match="never awaited") as warned:
        deciding.clear()

    assert not shows("".join(str(warning.message) for warning in warned), token)


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_what_is_refused_before_it_is_decided_leaves_no_coroutine_behind(flavour: str) -> None:
    """A coroutine that nobody closed would warn, and hold the token until then."""
    world = World()
    token = world.token()

    with pytest.raises(InvalidValueError) as refused:
        if flavour == "sync":
            world.guard.authenticate([f"Bearer {token}"], scopes=["no such scope"])
        else:
            asyncio.run(world.async_guard.authenticate([f"Bearer {token}"], scopes=["no such"]))

    assert not shows(frames_of_keyguard(refused.value), token)
    gc.collect()  # every warning is an error


def test_a_failed_look_up_s_cause_shows_no_token_in_our_frames() -> None:
    world = World()
    token = world.token()
    guard = Keyguard(Failing(world, OSError("down")), settings=world.guard.settings)

    decision = guard.authenticate([f"Bearer {token}"])

    cause = getattr(decision, "cause", None)
    assert isinstance(cause, OSError)
    assert not shows(frames_of_keyguard(cause), token)


def test_a_key_that_changed_under_its_look_up_shows_no_digest_in_our_frames() -> None:
    """The stored digest is a fast hash of the token, which lets a weak one be guessed."""
    world = World()
    issued = world.issue()
    record = world.store.find_key(issued.key.id)
    assert record is not None
    answers: list[Any] = [record, OSError("down")]

    def find_key(key_id: str) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        world.guard._ports.tokens.forget([key_id])
        return answer

    world.store.find_key = find_key  # type: ignore[method-assign]
    decision = world.guard.authenticate([f"Bearer {issued.token.reveal()}"])

    cause = getattr(decision, "cause", None)
    assert isinstance(cause, OSError)
    assert record.digest not in frames_of_keyguard(cause)


def test_a_failed_issue_shows_no_token_in_our_frames() -> None:
    world = World()
    minted: list[str] = []
    mint = TokenFormat.mint

    def spy(self: TokenFormat, parts: Any) -> Secret:
        minted.append(mint(self, parts).reveal())
        return Secret(minted[-1])

    def failing(commit: Commit) -> bool:
        raise OSError("down")

    world.store.commit = failing  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TokenFormat, "mint", spy)
        with pytest.raises(OSError, match="down") as failed:
            world.issue()

    assert not shows(frames_of_keyguard(failed.value), minted[0])


@pytest.mark.parametrize("action", ["get", "revoke", "update"])
def test_a_token_passed_as_an_id_is_not_repeated(action: str) -> None:
    world = World()
    token = world.token()

    with pytest.raises(NotFoundError, match="never a whole token") as refused:
        getattr(world.guard.keys, action)(token)
    assert not shows(str(refused.value), token)
    with pytest.raises(NotFoundError) as unknown:
        world.guard.organizations.get(token)
    assert not shows(str(unknown.value), token)
