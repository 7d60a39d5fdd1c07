"""The help of every command, as it is read in a window of 80 columns."""

from __future__ import annotations

import re

import pytest

from tests.cli.conftest import Program

GROUPS = ("org", "key", "request", "pepper", "console")
_COMMANDS = re.compile(r"^  ([a-z-]+) {2,}\S", re.MULTILINE)


@pytest.fixture
def pages(keyguard: Program, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The help of each command, by its name."""
    monkeypatch.setenv("COLUMNS", "80")
    found: dict[str, str] = {}
    pending: list[tuple[str, ...]] = [()]
    while pending:
        command = pending.pop()
        done = keyguard(*command, "--help")
        assert (done.status, done.stderr) == (0, "")
        found[" ".join(command)] = done.stdout
        if command == () or command in [(group,) for group in GROUPS]:
            listed = done.stdout.partition("\nCommands:\n")[2]
            pending += [(*command, name) for name in _COMMANDS.findall(listed)]
    assert len(found) > 35
    return found


def test_no_line_is_cut_or_too_long(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        for line in page.splitlines()[1:]:  # the first has [ARGS]...
            assert not line.endswith("..."), (name, line)
            assert len(line) <= 80, (name, line)


def test_a_value_is_called_by_what_it_is(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        options = page.partition("\nOptions:\n")[2].partition("\nCommands:\n")[0]
        assert not re.search(r"<(list\[)?[a-z]+\]?>", options), name
        assert "[[" not in page, name


def test_a_default_is_said_once(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        words = " ".join(page.split())
        for value in re.findall(r"\[default: ([^\]]+)\]", words):
            assert f"{value} by default" not in words, (name, value)
