"""Rules: what a request needs by its path and method, before the application sees it.

A request without a rule needs a key. The most specific rule decides, whatever the order of rules.
Segment by segment from the left, a literal is more specific than a parameter, and a parameter than
the rest of a path; of two rules for a path, the rule that names the method is more specific.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from keyguard.core.access.decisions import Deny, Reason
from keyguard.core.http.paths import REST, SEGMENT, is_ambiguous, parse_template, readings
from keyguard.core.identity.principal import Request
from keyguard.core.identity.scopes import Requirement, ScopeCatalogue
from keyguard.core.limits.limit import Limit, Limits, RouteLimit, read_limits
from keyguard.exceptions import InvalidValueError, shown

METHOD_OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override")
"""Some applications read another method from these fields, in lower case; keyguard does not."""

_METHOD = r"[A-Z][A-Z0-9_-]*\Z"  # RFC 9110 allows more; no framework routes the others
_NOT_IN_A_NAME = r"[^A-Za-z0-9]+"
_LONGEST_NAME = 64
_LOGIN = r"[A-Za-z][A-Za-z0-9-]{0,63}\Z"
_NEEDS_KEY = ("key", "organization")


@dataclass(frozen=True, slots=True)
class Rule:
    """What requests to some paths need.

    ::

        Rule("/v1/models/{model_id}", methods=["GET"], scopes=["inference:read"])
        Rule("/static/{path:path}", public=True)

    A rule that is not public covers its path with and without a slash at the end.

    With ``also``, a request without keyguard's credentials goes on to the application, with None as
    its principal, and the application has to refuse whom it does not know. What such a rule asks
    for, it asks of keys.

    Args:
        path: A path template: ``{name}`` stands for a segment, ``{name:path}`` at the end for any
            rest of the path.
        methods: The methods of the rule, in upper case; None for all. ``GET`` covers ``HEAD``.
        public: Whether requests need no key.
        scopes: Scopes that a request needs all of.
        any_of: Scopes that a request needs any one of.
        limits: Limits of the rule, besides those of the key: one or several
            :class:`~keyguard.Limit` or rates such as ``"60/minute"``. Limits of the same name
            share their count.
        cost: How much a request counts in these limits, at least 1, or a function of the
            :class:`~keyguard.Request`.
        also: What the application calls its own login beside keys, such as ``"session"`` or
            ``"JWT"``; None where it takes keys alone. The name is for reports.

    Raises:
        InvalidValueError: A value has the wrong type or form, no path can match the rule, or its
            values contradict each other.
    """

    path: str
    methods: Iterable[str] | None = field(default=None, kw_only=True)
    public: bool = field(default=False, kw_only=True)
    scopes: Iterable[str] | None = field(default=None, kw_only=True)
    any_of: Iterable[str] | None = field(default=None, kw_only=True)
    limits: Limits = field(default=(), kw_only=True)
    cost: int | Callable[[Request], int] = field(default=1, kw_only=True)
    also: str | None = field(default=None, kw_only=True)
    segments: tuple[str, ...] = field(init=False, repr=False, compare=False)
    requirement: Requirement | None = field(init=False, repr=False, compare=False)
    charged: tuple[RouteLimit, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        segments = parse_template(self.path)
        if not isinstance(self.public, bool):
            raise self._refusal(f"public takes True or False, not {shown(self.public)}")
        self._check_also()
        methods = self._read_methods()
        requirement = self._read_requirement()
        shared, limits = self._read_limits()
        if self.public and requirement is not None:
            raise self._refusal("a public path asks for no scopes; leave out one of them")
        if self.public and any(limit.per in _NEEDS_KEY for limit in limits):
            raise self._refusal(
                "on a public path there is no key: its limits are per 'address', or per a function"
            )
        if not limits and self.cost != 1:
            raise self._refusal("a cost is for the rule's own limits, and it has none")
        name = self.path if methods is None else f"{' '.join(sorted(methods))} {self.path}"
        charged = tuple(
            RouteLimit(limit=limit, route=limit.name if limit in shared else name, cost=self.cost)
            for limit in limits
        )
        for slot, value in (
            ("methods", methods),
            ("limits", limits),
            ("scopes", None if self.scopes is None else tuple(self.scopes)),
            ("any_of", None if self.any_of is None else tuple(self.any_of)),
            ("segments", segments),
            ("requirement", requirement),
            ("charged", charged),
        ):
            object.__setattr__(self, slot, value)

    def covers(self, method: str) -> bool:
        """Tell whether the rule is for a method; HEAD is asked as GET."""
        return self.methods is None or method in self.methods

    def for_keys(self) -> Rule:
        """Return what the rule is where it takes no other login."""
        rule = copy(self)
        object.__setattr__(rule, "also", None)
        return rule

    def without_key(self) -> tuple[RouteLimit, ...]:
        """Return the limits that a request without a key is charged to."""
        return tuple(limit for limit in self.charged if limit.limit.per not in _NEEDS_KEY)

    def _check_also(self) -> None:
        also = self.also
        if also is None:
            return
        if not (isinstance(also, str) and re.match(_LOGIN, also)):
            raise self._refusal(
                "also names the application's own login in letters, digits and '-', such as "
                f"'session', not {shown(also)}"
            )
        if self.public:
            raise self._refusal("a public path needs no login; leave out public or also")

    def _read_methods(self) -> frozenset[str] | None:
        if self.methods is None:
            return None
        if isinstance(self.methods, str) or not isinstance(self.methods, Iterable):
            raise self._refusal(f"methods is a list, such as ['GET'], not {shown(self.methods)}")
        methods = tuple(self.methods)
        for method in methods:
            if not isinstance(method, str) or not re.match(_METHOD, method):
                raise self._refusal(
                    f"{shown(method)} is no method: write it in upper case, as 'GET'"
                )
        if not methods:
            raise self._refusal("methods is empty: leave it out for all, or name some")
        if "HEAD" in methods and "GET" not in methods:
            raise self._refusal("HEAD is guarded as GET: name 'GET'")
        return frozenset(methods) - {"HEAD"}

    def _read_requirement(self) -> Requirement | None:
        scopes, any_of = self.scopes, self.any_of
        for name, given in (("scopes", scopes), ("any_of", any_of)):
            if isinstance(given, str):
                raise self._refusal(f"{name} is a list: write [{shown(given)}]")
            if given is not None and not isinstance(given, Iterable):
                raise self._refusal(f"{name} is a list, not {shown(given)}")
        if scopes is not None:
            object.__setattr__(self, "scopes", scopes := tuple(scopes))
            if not scopes:
                raise self._refusal("scopes is empty: leave it out, or name some")
        if any_of is not None:
            object.__setattr__(self, "any_of", any_of := tuple(any_of))
        requirement = Requirement.of(scopes or (), any_of)
        return requirement if requirement.scopes else None

    def _read_limits(self) -> tuple[list[Limit], tuple[Limit, ...]]:
        """Return the limits that have names, and all; the rates without one become one limit."""
        limits: Any = [self.limits] if isinstance(self.limits, Limit | str) else self.limits
        if not isinstance(limits, list | tuple):
            raise self._refusal(f"limits is a list of limits, not a {type(limits).__name__}")
        named: list[Limit] = []
        rates: list[str] = []
        for limit in limits:  # pyright: ignore[reportUnknownVariableType]  # of anything
            if isinstance(limit, Limit):
                named.append(limit)
            elif isinstance(limit, str):
                rates.append(limit)
            else:
                wrong = shown(limit)  # pyright: ignore[reportUnknownArgumentType]  # of anything
                raise self._refusal(
                    f"a limit is a Limit or a rate such as '60/minute', not {wrong}"
                )
        if not rates:
            return named, read_limits(named, "key")
        name = re.sub(_NOT_IN_A_NAME, "-", self.path).strip("-")[:_LONGEST_NAME].strip("-")
        unnamed = Limit(name or "root", "; ".join(rates))
        return named, read_limits([*named, unnamed], "key")

    def _refusal(self, why: str) -> InvalidValueError:
        return InvalidValueError(f"rule {self.path!r}: {why}")


class _Node:
    """A node in the tree of all templates: the segments before it are matched."""

    __slots__ = ("literals", "rest", "rules", "segment")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.segment: _Node | None = None
        self.rules: list[Rule] = []  # those that end here
        self.rest: list[Rule] = []  # those that match any rest


class RuleBook:
    """All rules of a service.

    Args:
        rules: The rules, in any order.
        public: Exact paths that need no key; each stands for a public rule.
        catalogue: The scopes of the service, or None if it takes any scope.
        any_spelling: Whether a rule that is not public covers its paths in any case, and with a
            format suffix as well.

    Attributes:
        rules: All rules; those of the public paths come first.
        paths: The exact public paths.
        everywhere: Whether there are other rules, so that every request has to be looked up.
        any_spelling: As given.

    Raises:
        InvalidValueError: An item is no rule, two rules conflict, or a rule names an unknown scope.
    """

    __slots__ = ("_asks", "_root", "any_spelling", "everywhere", "paths", "rules")

    def __init__(
        self,
        rules: Iterable[Rule] = (),
        public: Iterable[str] = (),
        catalogue: ScopeCatalogue | None = None,
        *,
        any_spelling: bool = False,
    ) -> None:
        self.any_spelling = any_spelling
        exact = [Rule(path, public=True) for path in _read_public(public)]
        if isinstance(rules, Rule) or not isinstance(rules, Iterable):
            raise InvalidValueError("rules are a list of keyguard.Rule")
        self.rules = (*exact, *rules)
        self._root = _Node()
        for rule in self.rules:
            if not isinstance(rule, Rule):
                raise InvalidValueError(f"rules are a list of keyguard.Rule, not of {shown(rule)}")
            if rule.requirement is not None and catalogue is not None:
                catalogue.check_required(rule.requirement.scopes)
            self._add(rule)
        self._asks = not all(rule.public for rule in self.rules)
        self.everywhere = len(self.rules) > len(exact)
        self.paths = frozenset(rule.path for rule in exact)

    def find(self, path: str, method: str, raw_path: bytes | None = None) -> Rule | Deny | None:
        """Return the rule for a request.

        A public rule never opens a path that a more specific rule names for other methods. No more
        does a rule for keys and another login, unless that rule takes another login as well.

        Args:
            path: The decoded path that the router sees.
            method: The request method; a WebSocket's is ``GET``.
            raw_path: The path on the request line, without the query, or None if the server does
                not tell it.

        Returns:
            The rule; None if the request needs only a key; or the refusal of an ambiguous path, if
            any rule is not public and not all readings of the path lead to the same rule. An
            ambiguous path always needs a key.
        """
        path = path or "/"  # some routers treat both as the same
        if is_ambiguous(path, raw_path):
            return self._find_for_all(path, method, raw_path) if self._asks else None
        return self._find(path, method)

    def _find_for_all(self, path: str, method: str, raw_path: bytes | None) -> Rule | Deny | None:
        """Return the rule that all readings of an ambiguous path lead to, or a refusal."""
        found = [self._find(each, method) for each in readings(path, raw_path) or ()]
        if not found or any(rule != found[0] for rule in found):
            return Deny(Reason.PATH_AMBIGUOUS)
        rule = found[0]
        return None if rule is None or rule.public else rule.for_keys()

    def _find(self, path: str, method: str) -> Rule | None:
        # Some routers match methods in any case. So a rule that is not public covers any case, but
        # a public rule covers only the exact method.
        named = keyed = not method.isupper()
        method = method.upper()
        if method == "HEAD":
            method = "GET"
        found: list[tuple[list[Rule], bool]] = []
        segments = path[1:].split("/")
        if self.any_spelling:
            lower = path[1:].lower().split("/")
            _match(self._root, lower, 0, found, _stem_of(lower))
        else:
            _match(self._root, segments, 0, found)
        for rules, exactly in found:
            for rule in rules:
                if not rule.covers(method):
                    continue
                if not (rule.public or rule.also):
                    return rule
                opens = exactly and _is_spelled(rule, segments)
                if opens and not (named if rule.public else keyed):
                    return rule
                if rule.also:
                    return rule.for_keys()
            named = named or not all(rule.public for rule in rules)
            keyed = keyed or not all(rule.public or rule.also for rule in rules)
        return None

    def _add(self, rule: Rule) -> None:
        node = self._root
        for segment in rule.segments:
            if segment == REST:
                break
            if segment == SEGMENT:
                node.segment = node.segment or _Node()
                node = node.segment
            else:
                literal = segment.lower() if self.any_spelling else segment
                node = node.literals.setdefault(literal, _Node())
        siblings = node.rest if rule.segments[-1] == REST else node.rules
        for other in siblings:
            if _overlap(rule, other):
                raise InvalidValueError(
                    f"two rules are for {rule.path!r}"
                    + (f" (and {other.path!r})" if other.path != rule.path else "")
                    + ": join them, or let them name different methods"
                )
        siblings.append(rule)
        siblings.sort(key=lambda rule: rule.methods is None)


def needs_no_key(rule: Rule | None, fields: Container[str]) -> bool:
    """Tell whether a rule lets a request without keyguard's credentials through.

    Args:
        rule: The rule for it.
        fields: Those of :data:`METHOD_OVERRIDES` that the request has.
    """
    if rule is None or not (rule.public or rule.also):
        return False
    # If only some methods need no key, the application may believe a field that names another.
    return rule.methods is None or not any(name in fields for name in METHOD_OVERRIDES)


def _match(
    node: _Node,
    segments: list[str],
    at: int,
    found: list[tuple[list[Rule], bool]],
    stem: tuple[int, str] | None = None,
    *,
    exactly: bool = True,
) -> None:
    """Append the rules whose template a path matches, the most specific first.

    With each goes whether the match is exact, or ignores a slash or a format suffix at the end.
    ``stem`` is the segment that has such a suffix, without it, and where it stands. This visits
    each node at most once, so it takes time linear in the number of rules.
    """
    left = len(segments) - at
    if left:
        segment = segments[at]
        literal = node.literals.get(segment)
        if literal is not None:
            _match(literal, segments, at + 1, found, stem, exactly=exactly)
        if stem is not None and stem[0] == at and stem[1] in node.literals:
            _match(node.literals[stem[1]], segments, at + 1, found, stem, exactly=False)
        if segment and node.segment is not None:
            _match(node.segment, segments, at + 1, found, stem, exactly=exactly)
        if left == 1 and not segment and node.rules:
            found.append((node.rules, False))  # "/a/", and a rule for "/a"
    else:
        if node.rules:
            found.append((node.rules, exactly))
        slash = node.literals.get("")
        if slash is not None and slash.rules:
            found.append((slash.rules, False))  # "/a", and a rule for "/a/"
    if node.rest:
        # Not exact: "/a", and a rule for "/a/{rest:path}".
        found.append((node.rest, exactly and left > 0))


def _stem_of(segments: list[str]) -> tuple[int, str] | None:
    """Return where the last segment of a path stands, and what it is without a format suffix."""
    at = len(segments) - (2 if segments[-1] == "" else 1)
    stem, _, suffix = segments[at].rpartition(".")
    return (at, stem) if stem and suffix.isalnum() else None


def _is_spelled(rule: Rule, segments: list[str]) -> bool:
    """Tell whether a path has the literals of a rule that matches it, in the same case."""
    return all(
        literal in (SEGMENT, REST) or literal == segment
        for literal, segment in zip(rule.segments, segments, strict=False)
    )


def _overlap(rule: Rule, other: Rule) -> bool:
    if rule.methods is None or other.methods is None:
        return rule.methods is other.methods
    return not frozenset(rule.methods).isdisjoint(other.methods)


def _read_public(public: Iterable[str]) -> list[str]:
    if isinstance(public, str):
        raise InvalidValueError(f"public paths are a list: write [{shown(public)}]")
    if not isinstance(public, Iterable):
        raise InvalidValueError(f"public paths are a list, not {shown(public)}")
    for path in (paths := [*public]):
        segments = parse_template(path)
        if SEGMENT in segments or REST in segments:
            raise InvalidValueError(
                f"{path!r} is no exact path; for a template use Rule({path!r}, public=True)"
            )
    return sorted({*paths})
