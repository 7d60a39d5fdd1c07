"""Which rules cover a route: whether it is public, and whether anybody has said so.

A route is a template, and so is a rule; several rules may each cover a part of one route. What is
here is asked before anything is served, by ``keyguard routes``; requests ask the rules themselves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from keyguard.core.http.paths import REST, SEGMENT
from keyguard.core.http.rules import Rule, RuleBook

__all__ = ["Coverage", "coverage", "template_of"]

Segments = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What covers a route, or a part of it.

    Args:
        rule: The rule that decides; None where a key is needed and nothing else.
        part: The template of the part; None for all that no other part is.
        is_named: Whether the rule is for this route, or for something in it, and for nothing else:
            one of the same template, or of an exact path or a template within.
    """

    rule: Rule | None
    part: str | None = None
    is_named: bool = False

    @property
    def is_public(self) -> bool:
        """Whether no key is needed."""
        return self.rule is not None and self.rule.public


def template_of(segments: Sequence[str]) -> str:
    """Return the segments of a template as people write them."""
    return "/" + "/".join(
        segment.replace(REST, "{path:path}").replace(SEGMENT, "{name}") for segment in segments
    )


def coverage(
    book: RuleBook, route: Segments, method: str, *, is_exact: bool = True
) -> list[Coverage]:
    """Return what covers a route: all of it, then the parts that a narrower rule decides on.

    Args:
        book: The rules.
        route: The segments of its template, as :func:`~keyguard.core.http.paths.parse_template` has
            them. One may hold a ``SEGMENT`` between other characters, or a ``REST`` after them, and
            a ``REST`` may stand before the end, where a framework takes such: no rule has the same.
        method: The request method.
        is_exact: Whether the route matches all that its segments say. Of one that matches only some
            of that nobody knows whether a wider rule within was made for it.
    """
    found = [_covered(book, route, route, method, is_exact)]
    for rule in book.rules:
        part = _common(route, rule.segments)
        if part is not None and part != route and rule.covers(method):
            one = _covered(book, route, part, method, is_exact)
            if one.rule is rule:  # else another decides there, and tells of it itself
                found.append(one)
    return found


def _covered(
    book: RuleBook, route: Segments, part: Segments, method: str, is_exact: bool
) -> Coverage:
    rule = book.find(_witness(book, part), method)
    if not isinstance(rule, Rule):
        rule = None  # refused where it is no path that rules are for
    within = (
        rule is not None
        and REST not in route[:-1]
        and _common(route, rule.segments) == rule.segments
        and (is_exact or _is_for(route, rule.segments))
    )
    return Coverage(rule=rule, part=None if part == route else template_of(part), is_named=within)


def _is_for(route: Segments, rule: Segments) -> bool:
    """Tell whether a rule within a route is for it, though the route may match less than it says.

    It is where it is for just one path, or is all that is known of the route; or where both begin
    alike and the rule is for no more than a number of segments.
    """
    if rule == route or not {SEGMENT, REST} & {*rule}:
        return True
    return route[0] != REST and REST not in rule


def _witness(book: RuleBook, segments: Segments) -> str:
    """Return a path of a template that no other template has, unless it covers all of this one.

    A rule that decides on any path of the template decides on this one: whatever else there is has
    the more rules before that one.
    """
    literals = {segment for rule in book.rules for segment in rule.segments}
    fresh = "x"
    while fresh in literals:
        fresh += "x"
    deep = "/".join([fresh] * (1 + max((len(rule.segments) for rule in book.rules), default=0)))
    return "/" + "/".join(
        segment.replace(REST, deep).replace(SEGMENT, fresh) for segment in segments
    )


def _common(one: Segments, other: Segments) -> Segments | None:
    """Return the template of the paths that two templates have in common, or None."""
    found: list[str] = []
    for number in range(max(len(one), len(other))):
        if len(one) <= number or len(other) <= number:
            return None
        mine, theirs = one[number], other[number]
        if mine == REST:
            return (*found, *other[number:])
        if theirs == REST:
            return (*found, *one[number:])
        if mine.endswith(REST):
            begin = mine.removesuffix(REST)
            if theirs == SEGMENT:
                return (*found, begin + SEGMENT, *other[number + 1 :])
            return (*found, *other[number:]) if theirs.startswith(begin) else None
        segment = _either(mine, theirs)
        if segment is None:
            return None
        found.append(segment)
    return tuple(found)


def _either(mine: str, theirs: str) -> str | None:
    if mine == theirs:
        return mine
    for pattern, other in ((mine, theirs), (theirs, mine)):
        if SEGMENT in pattern:
            matched = re.fullmatch(".+".join(map(re.escape, pattern.split(SEGMENT))), other)
            if matched and other != SEGMENT:
                return other
    return None
