"""The rules that cover a route: whether it is public, and whether a rule names it.

A route is a template, and so is a rule; several rules may each cover a part of one route.
``keyguard routes`` uses this for reports. Requests are decided by the rules themselves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from keyguard.core.http.paths import REST, SEGMENT
from keyguard.core.http.rule_book import RuleBook
from keyguard.core.http.rules import Rule

Segments = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """The rule that covers a route or a part of it.

    Args:
        rule: The rule that decides; None if only a key is needed.
        part: The template of the part; None for all that no other part covers.
        is_named: Whether the rule covers nothing but this route or something in it: it has the same
            template, or an exact path or a template within.
    """

    rule: Rule | None
    part: str | None = None
    is_named: bool = False

    @property
    def is_public(self) -> bool:
        """Whether no key is needed."""
        return self.rule is not None and self.rule.public

    @property
    def also(self) -> str | None:
        """The application's own login, which is taken beside keys, if there is one."""
        return None if self.rule is None else self.rule.also


def template_of(segments: Sequence[str]) -> str:
    """Return the segments of a template as people write them."""
    return "/" + "/".join(
        segment.replace(REST, "{path:path}").replace(SEGMENT, "{name}") for segment in segments
    )


def coverage(book: RuleBook, route: Segments, method: str) -> list[Coverage]:
    """Return what covers the route as a whole, then each part for which a narrower rule decides.

    Args:
        book: The rules.
        route: The segments of its template. Unlike a rule's, a segment may hold a ``SEGMENT``
            between other characters, and a ``REST`` may stand before the end, as some frameworks
            allow.
        method: The request method.
    """
    found = [_covered(book, route, route, method)]
    for rule in book.rules:
        part = _common(route, rule.segments)
        if part is not None and part != route and rule.covers(method):
            covered = _covered(book, route, part, method)
            if covered.rule is rule:  # otherwise a more specific rule decides, and has its own part
                found.append(covered)
    return found


def is_for(rule: Rule, book: RuleBook, route: Segments) -> bool:
    """Return whether a rule covers any path of a route, for any method.

    Args:
        rule: A rule that is not public.
        book: The book that has it.
        route: The segments of the route's template.
    """
    templates = [rule.segments]
    if rule.segments[-1] == REST:
        templates.append(rule.segments[:-1])  # "/a/{rest:path}" covers "/a"
    mine = [_plain(book, template) for template in templates]
    return any(_common(_plain(book, route), template) is not None for template in mine)


def matches(route: Segments, path: Segments) -> bool:
    """Return whether the template of a route matches a path.

    Args:
        route: The segments of the template.
        path: The segments of the path.
    """
    return _common(route, path) == path


def _plain(book: RuleBook, segments: Segments) -> Segments:
    """Return a template as rules that are not public compare it."""
    plain = segments[:-1] if segments[-1:] == ("",) else segments
    return tuple(segment.lower() for segment in plain) if book.any_spelling else plain


def _covered(book: RuleBook, route: Segments, part: Segments, method: str) -> Coverage:
    found = book.find(_sample_path(book, part), method)
    rule = found if isinstance(found, Rule) else None  # no rule covers an ambiguous path
    fits = rule is not None and _common(route, rule.segments) == rule.segments
    return Coverage(
        rule=rule,
        part=None if part == route else template_of(part),
        is_named=fits and REST not in route[:-1],
    )


def _sample_path(book: RuleBook, segments: Segments) -> str:
    """Return a path of a template that no narrower rule matches.

    The rule that decides for this path is therefore the one for the template as a whole.
    """
    literals = {segment for rule in book.rules for segment in rule.segments}
    fresh = "x"
    while fresh in literals:
        fresh += "x"
    deep = "/".join([fresh] * (1 + max((len(rule.segments) for rule in book.rules), default=0)))
    return "/" + "/".join(
        segment.replace(REST, deep).replace(SEGMENT, fresh) for segment in segments
    )


def _common(route: Segments, rule: Segments) -> Segments | None:
    """Return the template of the paths that two templates have in common, or None."""
    found: list[str] = []
    for number, (mine, theirs) in enumerate(zip_longest(route, rule)):
        if mine is None or theirs is None:
            return None
        if mine == REST:
            return (*found, *rule[number:])
        if theirs == REST:
            return (*found, *route[number:])
        segment = _narrower(mine, theirs)
        if segment is None:
            return None
        found.append(segment)
    return tuple(found)


def _narrower(mine: str, theirs: str) -> str | None:
    if mine == theirs:
        return mine
    for pattern, other in ((mine, theirs), (theirs, mine)):
        if SEGMENT in pattern and other != SEGMENT:
            parts = map(re.escape, pattern.split(SEGMENT))
            if re.fullmatch(".+".join(parts), other):
                return other
    return None
