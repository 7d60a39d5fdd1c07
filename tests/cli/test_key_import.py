"""`keyguard key import`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from keyguard import Allow
from tests.cli.conftest import PROGRAM, Program, Run, Store, Terminal
from tests.services import until

STRONG = "q7Zp0Lw3Vn8XcT5bRy2Kd9Hs6Jf4Mg1A"


@pytest.fixture(autouse=True)
def formats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYGUARD_IMPORTED_FORMATS", "drf token")


def row(number: int, **fields: Any) -> str:
    token = {"format": "drf", "token": f"{number:08d}.{STRONG}"}
    return json.dumps({"organization": "acme", "name": f"key {number}"} | token | fields)


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., str]:
    def write(*lines: str | bytes) -> str:
        path = tmp_path / "rows.jsonl"
        path.write_bytes(
            b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
        )
        return str(path)

    return write


def test_imported_keys_are_counted_and_work(
    keyguard: Program, store: Store, rows: Callable[..., str]
) -> None:
    path = rows(row(1), row(2))

    done = keyguard("key", "import", path)

    assert done.status == 0
    assert done.stdout == "Imported: 2, already there: 0, refused: 0\n"
    assert done.stderr == ""
    again = keyguard("key", "import", path)
    assert again.stdout == "Imported: 0, already there: 2, refused: 0\n"
    with store.open(imported_formats=["drf"]) as guard:
        assert isinstance(guard.authenticate([f"Bearer 00000001.{STRONG}"]), Allow)


def test_as_json_the_report_is_one_document_of_these_fields(
    keyguard: Program, store: Store, rows: Callable[..., str]
) -> None:
    done = keyguard("key", "import", rows(row(1), "{}"), "--json")

    assert done.status == 1
    assert done.json == {
        "dry_run": False,
        "imported": 1,
        "present": 0,
        "refused": [
            {"line": 2, "reason": "organization takes the id or the slug of an organization"}
        ],
    }
    assert done.stderr == ""


def test_refused_lines_are_reported_by_number_without_the_token(
    keyguard: Program, store: Store, rows: Callable[..., str]
) -> None:
    path = rows(
        row(1),
        row(2, organization="nobody"),
        "",
        row(1),
        row(3, name="\x1b[2J"),
        b"\xff",
        '"' + "x" * 200_000,
        row(4),
    )

    done = keyguard("key", "import", path)

    assert done.status == 1
    assert done.stdout == (
        "line 2: there is no organization 'nobody'\n"
        "line 4: line 1 has the same token, or the same public part\n"
        "line 5: name takes no control characters, line breaks or direction overrides, "
        "not '\\x1b[2J'\n"
        "line 6: a row is one JSON object on one line, in UTF-8\n"
        "line 7: a row takes at most 65536 characters\n"
        "Imported: 2, already there: 0, refused: 5\n"
    )
    assert STRONG not in done.stdout + done.stderr


def test_a_dry_run_changes_nothing(
    keyguard: Program, store: Store, rows: Callable[..., str]
) -> None:
    done = keyguard("key", "import", rows(row(1), row(2)), "--dry-run")

    assert done.stdout == ("Would import: 2, already there: 0, would refuse: 0\n")
    assert store.keys() == ()


def test_rows_may_come_from_stdin_with_or_without_a_last_newline(
    keyguard: Program, store: Store
) -> None:
    done = keyguard("key", "import", "-", stdin=b"\xef\xbb\xbf" + f"{row(1)}\r\n{row(2)}".encode())

    assert done.status == 0
    assert len(store.keys()) == 2


@pytest.mark.parametrize("path", ["missing.jsonl", ".", "a\x00b"])
def test_a_file_that_can_t_be_read_is_wrong_usage(
    path: str, keyguard: Program, store: Store
) -> None:
    done = keyguard("key", "import", path)

    assert done.status == 2
    assert "can't be read" in done.sentence


def test_a_format_that_the_service_does_not_take_is_refused(
    keyguard: Program, store: Store, rows: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEYGUARD_IMPORTED_FORMATS")

    done = keyguard("key", "import", rows(row(1)))

    assert done.status == 1
    assert "KEYGUARD_IMPORTED_FORMATS" in done.stdout


def test_a_terminal_shows_a_progress_bar(
    terminal: Callable[..., Terminal], store: Store, rows: Callable[..., str]
) -> None:
    window = terminal("key", "import", rows(*(row(number) for number in range(1200))))

    assert window.finish() == 0
    assert "Importing" in window.shown
    assert "1200/1200" in window.text
    assert "Imported: 1200," in window.text


def test_an_import_that_was_killed_can_be_run_again_without_duplicates(
    process: Callable[..., Run], store: Store, rows: Callable[..., str]
) -> None:
    lines = [row(number) for number in range(1600)]
    path = rows(*lines)
    with (
        subprocess.Popen(
            [*PROGRAM, "key", "import", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        ) as importing,
        ThreadPoolExecutor(1) as threads,
    ):
        # The input never ends, so its last 100 rows never complete a portion: it can't be done
        # before it is killed, however long counting takes.
        fed = threads.submit(_feed, importing, Path(path).read_bytes())
        try:
            until(lambda: _count(store) > 0)
        finally:
            importing.send_signal(signal.SIGKILL)
        fed.result()

    left = _count(store)
    done = process("key", "import", path, "--json").json

    assert 0 < left < len(lines)
    assert left % 500 == 0
    assert (done["imported"], done["present"]) == (len(lines) - left, left)
    assert _count(store) == len(lines)
    assert _count(store, "keyguard_audit WHERE action = 'key.imported'") == len(lines)
    assert process("key", "import", path, "--json").json["present"] == len(lines)


def _feed(process: subprocess.Popen[bytes], rows: bytes) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(rows)
        process.stdin.flush()
        process.wait()
    with suppress(BrokenPipeError):
        process.stdin.close()


def _count(store: Store, what: str = "keyguard_keys") -> int:
    code = (
        "import sqlite3, sys; "
        "print(sqlite3.connect(sys.argv[1]).execute(f'SELECT count(*) FROM {sys.argv[2]}')"
        ".fetchone()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(store.path), what],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)
