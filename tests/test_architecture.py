"""What docs/architecture.md names exists, and what the core is made of is explained there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import keyguard
from tests.examples.pages import ROOT, page

PAGE = "docs/architecture.md"
PACKAGE = Path(keyguard.__file__).parent
BEGIN = "<!-- made by `make paths`: begin -->"
PATHS = ("Warm", "Cold", "Limited", "Rotate")
EXPLAINED = ("tokens", "identity", "limits", "keys", "http")
"""The rooms of the core whose classes are named after words of the glossary."""


def code_spans() -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", page(PAGE)))


def glossary() -> set[str]:
    rows = page(PAGE).partition("## Glossary")[2].partition("\n## ")[0]
    words = re.findall(r"^\| ([^|]+?) \|", rows, re.MULTILINE)
    return set(words) - {"word"}


def steps() -> list[tuple[str, list[str]]]:
    """Return the files of the four paths, each with the functions that are named beside it."""
    listed = page(PAGE).partition(BEGIN)[2]
    lines = re.findall(r"^- `([^`]+)`: (.+)$", listed, re.MULTILINE)
    return [(file, re.findall(r"`([^`]+)`", functions)) for file, functions in lines]


@cache
def defined(file: str) -> set[str]:
    """Return the qualified names of all functions in a file."""
    found: set[str] = set()

    def walk(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}"
                found.add(name)
                walk(child, f"{name}.")
            elif isinstance(child, ast.Lambda):
                found.add(f"{prefix}<lambda>")
                walk(child, f"{prefix}<lambda>.")
            else:
                walk(child, prefix)

    walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8")), "")
    return found


@cache
def source() -> str:
    texts = [path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))]
    return "\n".join(texts).lower()


def test_every_file_and_folder_that_the_page_names_exists() -> None:
    named = {span for span in code_spans() if re.fullmatch(r"[\w/]+(/|\.py)", span)}

    assert len(named) > 20
    assert {name for name in named if not (PACKAGE / name).exists()} == set()


def test_every_room_is_named() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    core = {f"core/{path.name}" for path in (PACKAGE / "core").iterdir() if path.is_dir()}

    wanted = {f"{room}/" for room in (rooms | core) - {"core", "core/__pycache__"}}
    assert wanted - code_spans() == set()


def test_each_of_the_four_paths_is_listed() -> None:
    titles = re.findall(r"^### (\w+): ", page(PAGE).partition(BEGIN)[2], re.MULTILINE)

    assert tuple(titles) == PATHS
    assert len(steps()) > len(PATHS)


def test_every_function_of_the_four_paths_is_defined_where_the_page_says() -> None:
    missing = [
        f"{file}: {function}"
        for file, functions in steps()
        for function in functions
        if function not in defined(file)
    ]

    assert missing == [], "run make paths PATHS_ARGS=--write"


@pytest.mark.parametrize("word", sorted(glossary()))
def test_a_word_of_the_glossary_is_used(word: str) -> None:
    assert re.search(r"\b" + r"[\s_-]*".join(re.split("[ -]", word)), source())


def test_the_glossary_is_in_order_and_explains_no_word_twice() -> None:
    rows = page(PAGE).partition("## Glossary")[2].partition("\n## ")[0]
    words = re.findall(r"^\| ([^|]+?) \|", rows, re.MULTILINE)[1:]

    assert words == sorted(set(words))


@pytest.mark.parametrize("room", EXPLAINED)
def test_the_classes_of_the_core_are_named_after_words_of_the_glossary(room: str) -> None:
    explained = {part.removesuffix("s") for word in glossary() for part in word.split()}
    for path in (PACKAGE / "core" / room).glob("*.py"):
        classes = [
            node.name
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        ]
        for name in classes:
            words = {word.lower().removesuffix("s") for word in re.findall("[A-Z][a-z]+", name)}
            assert words & explained, f"{path.name}: {name}"


def test_contributing_points_to_the_page() -> None:
    assert "docs/architecture.md" in page("CONTRIBUTING.md")
    assert (ROOT / PAGE).exists()
