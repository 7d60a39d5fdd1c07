"""The token goes to stdout once, and nowhere else."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from typer.main import get_group

from keyguard import RefusedError
from keyguard.cli import token_io
from keyguard.cli.app import app
from tests.cli.conftest import PROGRAM, Program, Run, Store

CREATE = ("key", "create", "--org", "acme", "--name", "ci", "--scope", "a:b")


def secret_of(token: str) -> str:
    return token.strip().rsplit("_", 1)[1]


def test_a_token_is_on_stdout_once_and_not_on_stderr(keyguard: Program, store: Store) -> None:
    for arguments in ((), ("--json",)):
        done = keyguard(*CREATE, *arguments)
        secret = secret_of(done.json["token"] if arguments else done.stdout)
        assert done.stdout.count(secret) == 1
        assert secret not in done.stderr


def test_a_token_is_in_no_log_at_any_level(
    keyguard: Program, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("keyguard", "sqlalchemy.engine", "sqlalchemy.pool", "alembic"):
        caplog.set_level(logging.DEBUG, logger=name)

    token = keyguard(*CREATE).stdout
    keyguard("key", "verify", stdin=token)
    keyguard("key", "verify", stdin=token[:-2] + "xy")

    assert "INSERT" in caplog.text
    assert secret_of(token) not in caplog.text


def test_a_token_is_not_in_the_database(keyguard: Program, store: Store) -> None:
    secret = secret_of(keyguard(*CREATE).stdout).encode()

    for path in store.path.parent.iterdir():
        assert secret not in path.read_bytes()


@pytest.mark.parametrize(
    "command",
    [
        *(("key", name) for name in ("verify", "show", "list", "update", "rotate")),
        *(("key", f"revoke{what}") for what in ("", "-family", "-token")),
        *(("org", "disable"), ("org", "show"), ("audit", "--key"), ("audit", "--org")),
    ],
)
def test_a_token_given_as_an_argument_is_not_repeated(
    command: tuple[str, ...], keyguard: Program, store: Store
) -> None:
    token = store.issue(scopes=["a:b"]).token.reveal()

    done = keyguard(*command, token)

    assert done.status in {1, 2}
    assert secret_of(token) not in done.sentence


def test_verify_says_that_a_token_is_never_an_argument(keyguard: Program, store: Store) -> None:
    done = keyguard("key", "verify", "anything", stdin="anything")

    assert done.status == 2
    assert done.sentence.startswith("a token is never passed as an argument")


def test_a_token_in_place_of_a_key_id_is_answered_with_the_id(
    keyguard: Program, store: Store
) -> None:
    issued = store.issue(scopes=["a:b"])

    done = keyguard("key", "revoke", issued.token.reveal())

    assert done.status == 2
    assert done.sentence.endswith(f"pass the key's id, {issued.key.id}")
    assert store.keys()[0].revoked_at is None


def test_a_rotated_token_is_on_stdout_once_and_not_on_stderr(
    keyguard: Program, store: Store
) -> None:
    for arguments in ((), ("--json",)):
        done = keyguard("key", "rotate", store.issue().key.id, *arguments)
        secret = secret_of(done.json["token"] if arguments else done.stdout)
        assert done.stdout.count(secret) == 1
        assert secret not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, as Linux has it")
def test_a_token_that_can_not_be_handed_over_leaves_no_live_key(
    process: Callable[..., Run], store: Store
) -> None:
    full = f"import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); {PROGRAM[2]}"

    done = process(*CREATE, program=(sys.executable, "-c", full))

    (key,) = store.keys()
    assert done.status == 1
    assert done.sentence == (
        "the token could not be written to stdout (No space left on device), "
        f"so its key {key.id} was revoked at once"
    )
    assert key.revoked_note == "its token could not be written"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, as Linux has it")
def test_a_rotated_token_that_can_not_be_handed_over_leaves_no_live_successor(
    process: Callable[..., Run], store: Store
) -> None:
    full = f"import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); {PROGRAM[2]}"
    key = store.issue(scopes=["admin"]).key

    done = process("key", "rotate", key.id, program=(sys.executable, "-c", full))

    old, new = store.keys()
    assert done.status == 1
    assert done.sentence == (
        "the token could not be written to stdout (No space left on device), so its key "
        f"{new.id} was revoked at once; its predecessor {old.id} stops working when its grace "
        "ends: create a new key"
    )
    assert old.revoked_at is None
    assert new.revoked_note == "its token could not be written"


def test_a_key_that_can_neither_be_handed_over_nor_revoked_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = store.issue(scopes=["a:b"])
    monkeypatch.setattr(token_io, "emit", fails)

    with store.open() as guard:
        monkeypatch.setattr(guard.keys, "revoke", refuses)
        with pytest.raises(RefusedError, match=f"revoke {issued.key.id} yourself"):
            token_io.hand_over(guard, issued, as_json=False)


def test_no_error_that_leaves_the_command_line_carries_the_token(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = store.issue(scopes=["a:b"])
    monkeypatch.setattr(token_io, "emit", fails)

    with store.open() as guard, pytest.raises(RefusedError) as refused:
        token_io.hand_over(guard, issued, as_json=False)

    assert refused.value.__context__ is None
    secret = secret_of(issued.token.reveal())
    assert all(secret not in shown for shown in locals_of(refused.value.__traceback__))


def locals_of(traceback: TracebackType | None) -> list[str]:
    shown: list[str] = []
    while traceback is not None:
        if "keyguard" in str(traceback.tb_frame.f_globals.get("__package__")):
            shown += map(repr, traceback.tb_frame.f_locals.values())
        traceback = traceback.tb_next
    assert shown
    return shown


def fails(text: str) -> None:
    raise OSError(28, "No space left on device")


def refuses(*args: object, **kwargs: object) -> None:
    raise RefusedError("not now")


def commands(group: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *names, name)
        else:
            yield (*names, name), command


OTHER = "sk-proj-Zq7mLw2VtX9rKb4NcYs8HdPf3GjRa6TeUi5oQy1BkW0nEuAxDvMhJpCs"  # of another service
COMMANDS = dict(commands(get_group(app)))


@pytest.mark.parametrize("form", ["own", "other"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_token_given_as_any_option_is_not_repeated(
    command: tuple[str, ...], form: str, keyguard: Program, store: Store
) -> None:
    token = store.issue(scopes=["a:b"]).token.reveal() if form == "own" else OTHER
    parameters = COMMANDS[command].params
    needed = [
        word
        for parameter in parameters
        if parameter.required
        for word in (*parameter.opts[:1] * (parameter.param_type_name == "option"), "acme")
    ]
    options = [parameter.opts[0] for parameter in parameters if parameter.opts[0][:1] == "-"]

    for given in ([token], *([option, token] for option in options), [f"--{token}"]):
        for arguments in ([*given], [*needed, *given]):
            done = keyguard(*command, *arguments)
            # A key with such a scope can be made, and is shown with it.
            assert done.status == 0 or token[-40:] not in done.stderr, arguments


CUT = "redis://u:12?hun'ter x&typo@h"


@pytest.mark.parametrize("command", ["doctor", "migrate", "init"])
def test_a_password_that_was_cut_short_is_to_be_escaped(command: str, keyguard: Program) -> None:
    done = keyguard(command, "--url", CUT)

    assert (done.status, "written as %40" in done.sentence) == (2, True)
    assert not any(part in done.sentence for part in ("12", "hun'", "ter x", "typo"))


def test_a_url_in_place_of_an_argument_is_not_repeated(keyguard: Program) -> None:
    for arguments in ([CUT], [f"--{CUT}"], ["doctor", CUT], ["key", CUT], ["key", "show", CUT]):
        done = keyguard(*arguments)
        assert done.status in {1, 2}
        assert not any(part in done.stderr + done.stdout for part in ("hun'", "ter x", "typo"))
