"""What the sources are measured by: the size of their modules, and how much has no type."""

from __future__ import annotations

import re
from pathlib import Path

import keyguard

PACKAGE = Path(keyguard.__file__).parent
LONGEST = 400
"""Lines of a module (CONTRIBUTING.md, rule 9)."""

MOST_ANY = 200
"""Lines with the word ``Any``: where a library or a framework has no types, callbacks and rows."""

MOST_CASTS = 12


def sources() -> dict[str, str]:
    return {
        path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8")
        for path in PACKAGE.rglob("*.py")
    }


def lines_with(pattern: str) -> list[str]:
    return [
        f"{name}:{number}"
        for name, text in sources().items()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(pattern, line)
    ]


def test_no_module_is_long() -> None:
    longer = {name for name, text in sources().items() if text.count("\n") > LONGEST}

    assert longer == set()


def test_few_values_have_no_type() -> None:
    assert len(lines_with(r"\bAny\b")) <= MOST_ANY


def test_few_values_are_given_another_type() -> None:
    assert len(lines_with(r"\bcast\(")) <= MOST_CASTS
