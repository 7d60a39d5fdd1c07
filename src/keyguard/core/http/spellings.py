"""Other spellings of a path, by which requests for a resource may escape its rule.

Some routers serve one resource under several paths: with a format suffix (``/users.json``), with
and without a slash at the end, in any case. The router itself is asked which it serves; nothing is
guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeAlias

from keyguard.core.access.decisions import Deny
from keyguard.core.http.paths import REST, SEGMENT
from keyguard.core.http.rule_book import RuleBook
from keyguard.core.http.rules import Rule

Resource: TypeAlias = tuple[object, Mapping[str, object]]
"""An endpoint, and the arguments that the path gives it."""
Resolve: TypeAlias = Callable[[str, str | None], Resource | None]
"""A router: it takes a path and a method, or None for any, and returns what it serves there."""

_ANY_METHOD = "OTHER"  # one that no rule names
_SUFFIXES = ("", ".json", ".html", ".xml", ".csv", ".txt", ".yaml", ".api")
# What frameworks' parameters take: integers, words, UUIDs, dates, fractions.
SAMPLE_VALUES = ("1", "x", "a1b2c3d4-0000-4000-8000-000000000000", "2026-01-31", "1.5", "2026")


@dataclass(frozen=True, slots=True, kw_only=True)
class Escape:
    """A path that leads to a resource past its rule. ``str`` gives a sentence for people.

    Args:
        rule: The rule.
        path: The path.
    """

    rule: Rule
    path: str

    def __str__(self) -> str:
        return (
            f"{self.path} leads to a resource that the rule {self.rule.path!r} guards, but the "
            "rule does not match it: set any_spelling=True, or write a rule for that path"
        )


def find_escapes(book: RuleBook, resolve: Resolve, samples: Iterable[str] = ()) -> Iterator[Escape]:
    """Yield a path for each rule that requests can escape.

    Args:
        book: The rules.
        resolve: The router behind them.
        samples: Paths that the router serves, if it can name some. They are tried for rules that
            cover any rest of a path, because the paths below can't be guessed.
    """
    covers_rest = any(REST in rule.segments for rule in book.rules)
    samples = tuple(samples) if covers_rest else ()  # a router needs a while to find them
    for rule in book.rules:
        escape = None if rule.public else _escape_from(rule, book, resolve, samples)
        if escape is not None:
            yield escape


def _escape_from(
    rule: Rule, book: RuleBook, resolve: Resolve, samples: tuple[str, ...]
) -> Escape | None:
    for method in rule.methods or (None,):
        for path, resource in _resources(rule, book, resolve, method, samples):
            for spelling in _spellings(rule, path):
                other = book.find(spelling, method or _ANY_METHOD)
                if (
                    not isinstance(other, Deny)
                    and _asks_less(other, rule)
                    and _is_same(resolve(spelling, method), resource)
                ):
                    return Escape(rule=rule, path=spelling)
    return None


def _resources(
    rule: Rule, book: RuleBook, resolve: Resolve, method: str | None, samples: tuple[str, ...]
) -> Iterator[tuple[str, Resource]]:
    """Yield what a rule is for, each with a path; only the first, unless it covers any rest."""
    covers_rest = REST in rule.segments
    has_parameter = SEGMENT in rule.segments or covers_rest
    values = (
        (*SAMPLE_VALUES, *([""] if covers_rest else [])) if has_parameter else SAMPLE_VALUES[:1]
    )
    paths = [path for value in values for path in _with_ends(_path_of(rule, value))]
    for path in dict.fromkeys((*paths, *samples) if covers_rest else paths):
        if book.find(path, method or _ANY_METHOD) is rule:
            resource = resolve(path, method)
            if resource is not None:
                yield path, resource
                if not covers_rest:
                    return


def _path_of(rule: Rule, value: str) -> str:
    """Return a path of a rule, without a slash at its end."""
    segments = (value if segment in (SEGMENT, REST) else segment for segment in rule.segments)
    return "/" + "/".join(segments).rstrip("/")


def _with_ends(path: str) -> Iterator[str]:
    yield path
    if path != "/":
        yield f"{path}/"


def _spellings(rule: Rule, path: str) -> Iterator[str]:
    plain = path.rstrip("/")
    if plain:
        for suffix in _SUFFIXES:
            yield from _with_ends(plain + suffix)
        for change in (str.upper, str.title, str.lower):
            yield from _with_ends("/" + "/".join(_changed(rule, plain[1:].split("/"), change)))


def _changed(rule: Rule, segments: list[str], change: Callable[[str], str]) -> Iterator[str]:
    """Yield the segments of a path of a rule, with the rule's literals changed."""
    for segment, template in zip_longest(segments, rule.segments[: len(segments)], fillvalue=REST):
        yield segment if template in (SEGMENT, REST) else change(segment)


def _asks_less(found: Rule | None, rule: Rule) -> bool:
    if found is None:  # a key
        return rule.requirement is not None or bool(rule.charged)
    opens_more = found.public or (found.also is not None and rule.also is None)
    return opens_more or found.requirement != rule.requirement


def _is_same(found: Resource | None, resource: Resource) -> bool:
    """Return whether two paths lead to one resource. One of them may also name the format."""
    if found is None:
        return False
    endpoint, arguments = resource
    return found[0] == endpoint and all(
        found[1].get(name) == value for name, value in arguments.items()
    )
