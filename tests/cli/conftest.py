"""The command line as its users run it: in this process, as a process, and on a terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from keyguard import IssuedKey, Key, Keyguard
from keyguard.cli import main

PROGRAM = (sys.executable, "-c", "from keyguard.cli import main; main()")


@dataclass(frozen=True)
class Run:
    """The exit code and the output of one run."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        assert self.stdout.count("\n") == 1
        assert self.stdout.endswith("\n")
        return json.loads(self.stdout)

    @property
    def sentence(self) -> str:
        """The error: one line on stderr, and nothing on stdout."""
        assert self.stdout == ""
        assert self.stderr.startswith("keyguard: ")
        assert self.stderr.count("\n") == 1
        return self.stderr.removeprefix("keyguard: ").rstrip("\n")


class Program(Protocol):
    def __call__(self, *arguments: str, stdin: str | bytes = b"") -> Run: ...


class Store:
    """The key store of the runs, opened directly to check what they did."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"

    def open(self, **options: Any) -> Keyguard:
        return Keyguard(self.url, **options)

    def keys(self) -> tuple[Key, ...]:
        with self.open() as guard:
            return guard.keys.list().items

    def issue(self, name: str = "ci", *, organization: str = "acme", **options: Any) -> IssuedKey:
        with self.open() as guard:
            return guard.keys.issue(organization=organization, name=name, **options)

    def spoil(self, key_id: str, **columns: str) -> None:
        """Write columns of a key as another program would."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            for column, value in columns.items():
                connection.execute(
                    f"UPDATE keyguard_keys SET {column} = ? WHERE id = ?",
                    (value, key_id),
                )


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "keys.db"
    with Keyguard(f"sqlite:///{path}") as guard:
        guard.migrate()
        guard.organizations.create("acme", name="Acme Inc.")
    return path


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove all variables about keyguard, colours and the width of the terminal."""
    for name in list(os.environ):
        if name.startswith("KEYGUARD_"):
            monkeypatch.delenv(name)
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def store(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A migrated SQLite store with the organization acme, where KEYGUARD_URL points."""
    store = Store(tmp_path / "keys.db")
    shutil.copy(migrated, store.path)
    monkeypatch.setenv("KEYGUARD_URL", store.url)
    return store


@pytest.fixture
def keyguard(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    """Run the command line in this process."""

    def run(*arguments: str, stdin: str | bytes = b"") -> Run:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        monkeypatch.setattr(sys, "argv", ["keyguard", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main()
        code = leaving.value.code
        assert isinstance(code, int)
        said = capsys.readouterr()
        return Run(code, said.out, said.err)

    return run


@pytest.fixture
def process() -> Callable[..., Run]:
    """Run the command line as a process of its own."""

    def run(*arguments: str, stdin: str = "", program: Sequence[str] = PROGRAM) -> Run:
        done = subprocess.run(
            [*program, *arguments], input=stdin, capture_output=True, text=True, check=False
        )
        return Run(done.returncode, done.stdout, done.stderr)

    return run


def _hear_ctrl_c() -> None:
    """Handle SIGINT again, which a shell ignores for processes that it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """The command line on a terminal of 80 columns, with its output and its user's input."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_hear_ctrl_c,  # noqa: PLW1509 - it takes no lock
        )
        os.close(slave)
        self._shown = b""

    @property
    def shown(self) -> str:
        return self._shown.decode().replace("\r\n", "\n")

    @property
    def text(self) -> str:
        """The text on the terminal, without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.shown)

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 60
        while text not in self.shown:
            assert self._read(deadline), f"it ended without {text!r}: {self.shown}"

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C until the program reacts; a signal just before it waits is lost."""
        while True:
            self.process.send_signal(signal.SIGINT)
            if select.select([self._master], [], [], 5)[0]:
                return

    def finish(self) -> int:
        deadline = time.monotonic() + 60
        while self._read(deadline):
            pass
        return self.process.wait(timeout=60)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=60)
        os.close(self._master)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing more came within a minute: {self.shown}"
        try:
            data = os.read(self._master, 65536)
        except OSError:  # on Linux, the program has closed the terminal
            return False
        self._shown += data
        return bool(data)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Terminal]]:
    """Run the command line on a terminal."""
    monkeypatch.setenv("COLUMNS", "80")
    opened: list[Terminal] = []

    def run(*arguments: str) -> Terminal:
        opened.append(Terminal(*arguments))
        return opened[-1]

    yield run
    for window in opened:
        window.close()
