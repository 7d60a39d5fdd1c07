"""The words of the project: plain sentences, and one name for one thing (conventions, rule 12)."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PROSE = [
    *SOURCES,
    *sorted((ROOT / "src").rglob("*.lua")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "examples").rglob("*.py")),
]

# What a stranger has to decode, and what to write instead.
UNCLEAR = {
    r"\bis none\b": "say what is missing",
    r"\bnot as said\b": "say that the value is not valid",
    r"\bfrom when on\b": "when",
    r"\bhangs? on\b": "depends on",
    r"\bto be had\b": "say who refused it",
    r"\bamid\b": "during, within",
    r"\bno more\b(?! than)": "no longer",
    r"\bwhoever\b": "name the actor",
    r"\bworks no\b": "does not work",
    r"\bsomebody insists\b": "force is given",
    r"^\s+\w+(Error|Denied): (It|That|They) (is|are|was|were)\.?$": "say in full what is wrong",
}
# A class for each framework, which differ by their module alone; and what Django loads by its name.
SHARED_NAMES = {"KeyguardMiddleware", "Command"}


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_sentences_are_plain(path: Path) -> None:
    text = path.read_text()
    found = [
        f"{path.relative_to(ROOT)}:{text[: match.start()].count(chr(10)) + 1}: "
        f"{match[0].strip()!r}; write: {better}"
        for pattern, better in UNCLEAR.items()
        for match in re.finditer(pattern, text, re.MULTILINE)
    ]

    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_variable_is_named_after_what_it_is(path: Path) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Name) and node.id == "one")
        or (isinstance(node, ast.arg) and node.arg == "one")
    ]

    assert not found


def classes() -> Iterator[tuple[str, str]]:
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name, str(path.relative_to(ROOT))


def test_no_two_classes_share_a_name() -> None:
    places = defaultdict[str, list[str]](list)
    for name, path in classes():
        places[name].append(path)

    shared = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert set(shared) <= SHARED_NAMES, shared
