"""An error at the start of a service shows no pepper and no password in keyguard's frames."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from keyguard import AsyncKeyguard, Keyguard, Rule, Settings
from keyguard.adapters import asgi, wsgi
from keyguard.runtime.frames import hides_arguments
from tests.world import World

PEPPER = "Zq7-mLw2VtX9_rKb4NcYs8HdPf3GjRa6TeUi5oQy1Bk"
WEAK_PEPPER = "hunter2" * 6
PASSWORD = "Tr0ub4dor-and-3"
SECRETS = (PEPPER, WEAK_PEPPER, PASSWORD)


def parts_of(value: object, depth: int = 4) -> Iterator[object]:
    """Give a value and what it holds, as far as an error reporter would look."""
    yield value
    held: list[object] = []
    if isinstance(value, Mapping):
        held = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        held = [*value]
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        held = [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    if depth:
        for part in held:
            yield from parts_of(part, depth - 1)


def shown_by(failure: BaseException) -> str:
    """Return all that an error reporter would record of an error, without the tests' frames."""
    found: list[str] = []
    pending: list[BaseException | None] = [failure]
    seen: set[int] = set()
    while pending:
        problem = pending.pop()
        if problem is None or id(problem) in seen:
            continue
        seen.add(id(problem))
        pending += [problem.__cause__, problem.__context__, *getattr(problem, "exceptions", ())]
        found.append("".join(traceback.format_exception_only(problem)))
        for frame, _ in traceback.walk_tb(problem.__traceback__):
            # The frame of a method that dataclasses writes has no file.
            if not str(frame.f_globals.get("__name__")).startswith("tests."):
                name = frame.f_code.co_qualname
                for value in [*frame.f_locals.values()]:
                    found += [f"{name}: {part!r}" for part in parts_of(value)]
    return "\n".join(found)


Start = Callable[[Path], object]


def environ(**more: str) -> dict[str, str]:
    return {"KEYGUARD_PEPPER": PEPPER, "KEYGUARD_URL": f"redis://:{PASSWORD}@127.0.0.1", **more}


def written(folder: Path, text: str) -> str:
    path = folder / "file"
    path.write_text(text)
    return str(path)


SETTINGS: dict[str, Start] = {
    "an unknown setting": lambda _: Settings(peppers=[PEPPER], typo=1),  # type: ignore[call-arg]
    "a value out of range": lambda _: Settings(peppers=[PEPPER], cache_size=-1),
    "a weak pepper": lambda _: Settings(peppers=[WEAK_PEPPER]),
    "a pepper twice": lambda _: Settings(peppers=[PEPPER, PEPPER]),
    "a pepper that is no list": lambda _: Settings(peppers=PEPPER),
    "a pepper of bytes": lambda _: Settings(peppers=[PEPPER.encode()]),  # type: ignore[list-item]
    "an unknown hasher": lambda _: Settings(peppers=[PEPPER], hasher="md5"),
    "a malformed realm": lambda _: Settings(peppers=[PEPPER], realm=""),
    "a malformed rule": lambda _: Settings(peppers=[PEPPER], rules=[Rule("/a"), Rule("/a")]),
    "two settings that contradict": lambda _: Settings(peppers=[PEPPER], revoke_exposed=True),
    "an unknown variable": lambda _: Settings.from_env(environ(KEYGUARD_TYPO="1")),
    "a malformed variable": lambda _: Settings.from_env(environ(KEYGUARD_CACHE_SIZE="many")),
    "a variable out of range": lambda _: Settings.from_env(environ(KEYGUARD_CACHE_SIZE="-1")),
    "a weak pepper in the environment": lambda _: Settings.from_env(
        environ(KEYGUARD_PEPPER=WEAK_PEPPER)
    ),
    "two places of the pepper": lambda folder: Settings.from_env(
        environ(KEYGUARD_PEPPER_FILE=str(folder))
    ),
    "a pepper file that can't be read": lambda folder: Settings.from_env(
        environ(KEYGUARD_PEPPER="", KEYGUARD_PEPPER_FILE=str(folder))
    ),
    "a pepper file with a weak pepper": lambda folder: Settings.from_env(
        environ(KEYGUARD_PEPPER="", KEYGUARD_PEPPER_FILE=written(folder, WEAK_PEPPER))
    ),
    "an override that is wrong": lambda _: Settings.from_env(environ(), cache_size=-1),
    "a pepper in the overrides": lambda _: Settings.from_env({}, peppers=[PEPPER], typo=1),
    "a file that is missing": lambda folder: Settings.from_file(folder / "none", environ()),
    "a file that is no TOML": lambda folder: Settings.from_file(
        written(folder, f"realm = {PEPPER}"), environ()
    ),
    "peppers in the file": lambda folder: Settings.from_file(
        written(folder, f"peppers = ['{PEPPER}']"), environ()
    ),
    "an unknown setting in the file": lambda folder: Settings.from_file(
        written(folder, "typo = 1"), environ()
    ),
}

POSTGRES = f"postgresql://user:{PASSWORD}@127.0.0.1:1/keys"
URLS = {
    "a URL of an unknown kind": f"oracle://user:{PASSWORD}@127.0.0.1/keys",
    "a URL that can't be read": f"postgresql://user:{PASSWORD}@127.0.0.1:port/keys",
    "an unescaped password": f"postgresql://user:@{PASSWORD}@127.0.0.1/keys",
    "a wrong option of Redis": f"redis://:{PASSWORD}@127.0.0.1/0?typo={PASSWORD}",
    "a wrong database of Redis": f"redis://:{PASSWORD}@127.0.0.1/keys",
    "a Redis without a host": f"redis+cluster://:{PASSWORD}@",
    "Sentinels without a service": f"redis+sentinel://:{PASSWORD}@127.0.0.1",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "an unknown option": {"typo": 1},
    "an option out of range": {"cache_size": -1},
    "a limiter of an unknown kind": {"limiter": f"etcd://:{PASSWORD}@127.0.0.1"},
    "a limiter that is none": {"limiter": {"url": PASSWORD}},
    "settings and a wrong option": {"settings": Settings(), "realm": ""},
}


def shows_nothing(start: Callable[[], object]) -> None:
    with pytest.raises(Exception, match=r".") as failed:
        start()
    shown = shown_by(failed.value)
    assert [secret for secret in SECRETS if secret in shown] == []


@pytest.mark.parametrize("case", SETTINGS)
def test_an_error_of_settings_shows_no_secret(case: str, tmp_path: Path) -> None:
    shows_nothing(lambda: SETTINGS[case](tmp_path))


def test_an_error_of_the_process_s_environment_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environ(KEYGUARD_TYPO="1").items():
        monkeypatch.setenv(name, value)
    assert PEPPER in os.environ.values()
    shows_nothing(Settings.from_env)


@pytest.mark.parametrize("guard", [Keyguard, AsyncKeyguard])
@pytest.mark.parametrize("case", URLS)
def test_an_error_of_a_url_shows_no_secret(case: str, guard: type[Any]) -> None:
    shows_nothing(lambda: guard(URLS[case], peppers=[PEPPER]))
    shows_nothing(lambda: guard("memory://", limiter=URLS[case], peppers=[PEPPER]))


@pytest.mark.parametrize("guard", [Keyguard, AsyncKeyguard])
@pytest.mark.parametrize("case", OPTIONS)
def test_an_error_of_an_option_shows_no_secret(case: str, guard: type[Any]) -> None:
    shows_nothing(lambda: guard("memory://", peppers=[PEPPER], **OPTIONS[case]))


@pytest.mark.parametrize("url", [POSTGRES, f"redis://:{PASSWORD}@127.0.0.1:1"])
def test_a_server_that_can_not_be_reached_shows_no_secret(url: str) -> None:
    with Keyguard(url, peppers=[PEPPER], hooks=[]) as guard:
        shows_nothing(guard.migrate)
        shows_nothing(lambda: guard.organizations.get("acme"))

    async def start() -> None:
        async with AsyncKeyguard(url, peppers=[PEPPER], hooks=[]) as aguard:
            await aguard.migrate()

    shows_nothing(lambda: asyncio.run(start()))


async def asgi_app(scope: Any, receive: Any, send: Any) -> None: ...


def wsgi_app(environ: Any, start_response: Any) -> Any: ...


@pytest.mark.parametrize("wrong", [{"public": "/a"}, {"rules": [1]}])
def test_an_error_of_a_middleware_shows_no_secret(wrong: dict[str, Any]) -> None:
    world = World({"peppers": [PEPPER]})

    shows_nothing(lambda: asgi.KeyguardMiddleware(asgi_app, world.async_guard, **wrong))
    shows_nothing(lambda: wsgi.KeyguardMiddleware(wsgi_app, world.guard, **wrong))
    shows_nothing(lambda: wsgi.KeyguardMiddleware(wsgi_app, world.async_guard))  # type: ignore[arg-type]


def test_an_unknown_kind_of_scope_shows_no_token() -> None:
    middleware = asgi.KeyguardMiddleware(asgi_app, World().async_guard)
    headers = [(b"authorization", f"Bearer {PASSWORD}".encode())]
    scope = {"type": "webtransport", "path": "/", "headers": headers}

    async def nothing(*_: Any) -> Any: ...

    shows_nothing(lambda: asyncio.run(middleware(scope, nothing, nothing)))  # type: ignore[arg-type]


def test_an_error_that_the_application_handles_keeps_its_frames() -> None:
    @hides_arguments
    def failing(secret: str) -> None:
        raise ValueError("no")

    handled = KeyError("the application's")
    try:
        raise handled
    except KeyError:
        with pytest.raises(ValueError, match="no") as failed:
            failing(PEPPER)
    assert failed.value.__context__ is handled
    assert handled.__traceback__ is not None
    assert PEPPER not in shown_by(failed.value)
